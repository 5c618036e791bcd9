r"""Figure 1 of the paper: epochs to 25 % training error, ReLU against tanh.

    python -m experiments.relu_vs_tanh --workdir=runs/relu_vs_tanh
    python -m experiments.relu_vs_tanh --workdir=runs/relu_vs_tanh_shapes \
        --data=shapes

"A four-layer convolutional neural network with ReLUs (solid line) reaches a 25%
training error rate on CIFAR-10 six times faster than an equivalent network with
tanh neurons (dashed line). The learning rates for each network were chosen
independently to make training as fast as possible. No regularization of any
kind was employed. The magnitude of the effect demonstrated here varies with
network architecture, but networks with ReLUs consistently learn several times
faster than equivalents with saturating neurons." (section 3.1)

The training error is the mean over an epoch's images as they were trained on;
between epochs it is taken for a line. For each activation the rate that takes
fewest epochs is looked for, on one seed, on one grid, upwards and downwards
until both neighbours take longer; other seeds then run at that rate. ReLU gives
up after 60 epochs, tanh after ten times ReLU's, or as ReLU where that gave up.

The paper says neither how its network was initialised nor how inputs were
scaled: CONDITIONS are cuda-convnet's way, today's, and each half of the step
between them.

Writes to --workdir: results.md, results.jsonl (a run a line), plot.png (the
figure), environment.json, and a directory for each run. The same command again
goes on where it was stopped.
"""

import dataclasses
import sys

from absl import flags

from alexnet_jax import command_line, errors
from experiments import sweep_program
from experiments.figure_1 import race, report

CONDITIONS = {
  '2012': race.Condition({'model.init': 'normal', 'data.scale': 1.0}, 3e-3),
  'today': race.Condition({'model.init': 'he', 'data.scale': 64.0}, 1e-2),
  'init of today': race.Condition(
    {'model.init': 'he', 'data.scale': 1.0}, 3e-3
  ),
  'inputs of today': race.Condition(
    {'model.init': 'normal', 'data.scale': 64.0}, 1e-2
  ),
}
_SEEDS = (1, 2, 3)
_FLAGS = flags.FLAGS


def _write(lab: race.Lab, found: dict[str, race.Pair]) -> str:
  text = report.markdown(found)
  rows = [dataclasses.asdict(attempt) for attempt in lab.attempts.values()]
  sweep_program.write_results(rows, text, report.draw(found), lab.attempts)
  return text


def _conditions() -> list[str]:
  for name in _FLAGS.conditions:
    if name not in CONDITIONS:
      raise errors.UserError(
        f'--conditions={name} does not exist; choose from '
        f'{", ".join(CONDITIONS)}.'
      )
  return _FLAGS.conditions or list(CONDITIONS)


def main(_) -> None:
  """One condition after the other; exit code 1 where one came to nothing."""
  found, failures, text = {}, [], ''
  lab = race.Lab(
    sweep_program.workdir(),
    _FLAGS.data,
    CONDITIONS,
    sweep_program.execute_all,
    sweep_program.seeds() or _SEEDS,
    sweep_program.overrides(),
  )
  for condition in _conditions():
    try:
      pair = race.compare(lab, condition)
      text = _write(lab, found | {condition: pair})
      found[condition] = pair
    except errors.UserError as error:
      failures.append(f'failed: {error}')
  print('\n'.join([text, *failures]))
  sys.exit(bool(failures))


if __name__ == '__main__':
  sweep_program.define_flags()
  flags.DEFINE_string('data', 'cifar10', 'As after the colon of --config.')
  flags.DEFINE_list('conditions', [], 'Which; by default all.')
  command_line.run(main)
