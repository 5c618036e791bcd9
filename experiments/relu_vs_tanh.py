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

The training error is the mean over an epoch's images as they were trained on.
Between the ends of two epochs it is taken to be a line. For each activation,
one seed tries the rates of one grid, upwards and downwards until both
neighbours of the best rate take longer. Other seeds then train at that rate.
ReLU gives up after 60 epochs. Tanh gives up after ten times ReLU's epochs, or
after 60 if ReLU gave up.

The paper does not say how its network was initialised or how its inputs were
scaled. Four conditions are compared: the way of cuda-convnet, today's way, and
one half of each.

It writes to --workdir: results.md, results.jsonl (one run a line), plot.png
(the figure), environment.json, and a directory for each run. The same command
again goes on where it was stopped.
"""

import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.workdir import metrics_file
from experiments import relu_vs_tanh_report as report
from experiments.relu_vs_tanh_report import RATES, TARGET, TUNING_SEED, Attempt
from experiments.sweeps import experiment, program, runner

CONDITIONS = {
  '2012': {'model.init': 'normal', 'data.scale': 1.0},
  'today': {'model.init': 'he', 'data.scale': 64.0},
  'init of today': {'model.init': 'he', 'data.scale': 1.0},
  'inputs of today': {'model.init': 'normal', 'data.scale': 64.0},
}
_FIRST_RATES = {1.0: 3e-3, 64.0: 1e-2}  # by scale
_MOST_EPOCHS = 60.0
_PATIENCE = 10.0  # tanh may take this many times ReLU's epochs
_FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Trains the network of Figure 1.

  Attributes:
    workdir: Absolute path of the directory for all runs.
    data: Name of the data, as after the colon of --config.
    seeds: Seeds that train at the best rate.
    overrides: Further fields of every run.
  """

  workdir: pathlib.Path
  data: str
  seeds: Sequence[int]
  overrides: runner.Overrides

  def train(self, attempt: Attempt, seeds: Sequence[int]) -> list[Attempt]:
    """Trains with each seed until `TARGET`, or until the attempt's limit.

    Args:
      attempt: Attempt to train; its seed is replaced.
      seeds: Seeds of the runs.

    Returns:
      The attempts with their epochs and curves.

    Raises:
      UserError: If a run fails for another reason than exploding numbers.
    """
    attempts = {s: dataclasses.replace(attempt, seed=s) for s in seeds}
    runs = {seed: self._create_run(a) for seed, a in attempts.items()}
    for result in program.execute_all(list(runs.values())):
      seed = result['seed']
      attempts[seed] = _with_result(attempts[seed], runs[seed], result)
      print(dataclasses.replace(attempts[seed], curve=()), flush=True)
    return list(attempts.values())

  def _create_run(self, attempt: Attempt) -> runner.Run:
    fields = {
      **CONDITIONS[attempt.condition],
      'model.activation': attempt.activation,
      'optimizer.learning_rate': attempt.rate,
      'num_epochs': float(math.ceil(attempt.limit)),
      'stop_at_train_error': TARGET,
      'log_every_steps': 0,  # The mean of each epoch is what is compared.
      'eval_every_epochs': 0.0,
    }
    experiment.check_free(self.overrides, {'seed', *fields})
    return runner.create_run(
      attempt.condition,
      attempt.seed,
      self.directory(attempt),
      f'configs/cifar10_relu_tanh.py:{self.data}',
      {**fields, **self.overrides},
    )

  def directory(self, attempt: Attempt) -> pathlib.Path:
    """Returns the workdir of an attempt."""
    return self.workdir.joinpath(
      attempt.condition.replace(' ', '_'),
      f'{attempt.activation}-{attempt.rate:g}',
      f'seed-{attempt.seed}',
    )


def _with_result(
  attempt: Attempt, run: runner.Run, result: runner.Result
) -> Attempt:
  """Returns an attempt with what its run has logged."""
  exploded = 'not finite' in result.get('reason', '')
  if result['status'] == 'failed' and not exploded:
    raise errors.UserError(f'{run.workdir}: {result["reason"]}')
  rows = metrics_file.parse(run.workdir / 'metrics.jsonl')
  training = [row for row in rows if row['split'] == 'train']
  metrics_file.check_numbers(run.workdir, training, ('epoch', 'top1_error'))
  curve = [(row['epoch'], row['top1_error']) for row in training]
  epochs = crossing(curve, TARGET)
  reached = epochs if epochs <= attempt.limit else None
  return dataclasses.replace(
    attempt, epochs=reached, exploded=exploded, curve=curve
  )


def crossing(curve: Sequence[tuple[float, float]], target: float) -> float:
  """Returns the epoch at which an error first comes down to a target.

  Args:
    curve: Pairs of an epoch and its mean error. Between two, it is a line.
    target: Error in [0, 1].

  Returns:
    The epoch, or infinity if the error stays above the target.
  """
  for index, (epoch, error) in enumerate(curve):
    if error <= target and index == 0:
      return epoch
    if error <= target:
      epoch_before, error_before = curve[index - 1]
      share = (error_before - target) / (error_before - error)
      return epoch_before + share * (epoch - epoch_before)
  return math.inf


def search(
  epochs: Callable[[float, float], float],
  rates: Sequence[float],
  start: float,
  limit: float,
) -> dict[float, float]:
  """Tries rates from `start` upwards, then downwards, as long as that helps.

  Both neighbours of the best rate are tried, unless it is the first or last of
  the grid. As long as no rate arrives, smaller rates are tried to the end.

  Args:
    epochs: Function of a rate and the most epochs that are of interest. It
      returns the epochs that the rate takes, or infinity for more.
    rates: Grid of rates, ascending.
    start: Rate of the grid that is tried first.
    limit: Most epochs that are of interest.

  Returns:
    Epochs by rate, of the rates that were tried.
  """
  found = {}

  def helps(rate: float) -> bool:
    best = min([limit, *found.values()])
    found[rate] = epochs(rate, best)
    return found[rate] < best

  helps(start)
  place = rates.index(start)
  for rate in rates[place + 1 :]:
    if not helps(rate):
      break
  if found[start] == min(found.values()):
    for rate in reversed(rates[:place]):
      if not helps(rate) and min(found.values()) < math.inf:
        break
  return found


def measure(
  trainer: Trainer, condition: str, activation: str, limit: float
) -> list[Attempt]:
  """Looks for the best rate, then trains the other seeds at that rate.

  Args:
    trainer: Trainer of the attempts.
    condition: Name of the condition.
    activation: 'relu' or 'tanh'.
    limit: Most epochs that are of interest.

  Returns:
    The attempts of the tuning seed, in order, then those of the other seeds.
    These train only if some rate reaches the target.
  """
  attempts = []

  def epochs(rate: float, most: float) -> float:
    attempt = Attempt(condition, activation, rate, TUNING_SEED, most)
    attempts.extend(trainer.train(attempt, [TUNING_SEED]))
    return attempts[-1].epochs or math.inf

  start = _FIRST_RATES[CONDITIONS[condition]['data.scale']]
  found = search(epochs, RATES, start, limit)
  best = min(found, key=found.get)
  if found[best] < math.inf:
    attempt = Attempt(condition, activation, best, TUNING_SEED, limit)
    attempts += trainer.train(attempt, trainer.seeds)
  return attempts


def compare(trainer: Trainer, condition: str) -> list[Attempt]:
  """Returns the attempts with ReLU, then those with tanh.

  Raises:
    UserError: If a run fails.
  """
  relu = measure(trainer, condition, 'relu', _MOST_EPOCHS)
  tuned = [a.epochs for a in relu if a.epochs and a.seed == TUNING_SEED]
  limit = _PATIENCE * min(tuned) if tuned else _MOST_EPOCHS
  return relu + measure(trainer, condition, 'tanh', limit)


def _seeds() -> list[int]:
  seeds = program.seeds() or [1, 2, 3]
  if TUNING_SEED in seeds:
    raise errors.UserError(
      f'--seeds={TUNING_SEED} is the seed that chooses the rates; give others.'
    )
  return seeds


def main(_) -> None:
  """Compares one condition after the other; exits with 1 if one failed."""
  if _FLAGS.results:
    attempts = program.read_results(lambda row: Attempt(**row))
    program.rewrite(report.markdown(attempts), report.draw(attempts))
    return
  trainer = Trainer(
    program.workdir(), _FLAGS.data, _seeds(), program.overrides()
  )
  attempts, failures, text = [], [], ''
  for condition in program.chosen('conditions', CONDITIONS):
    try:
      attempts += compare(trainer, condition)
    except errors.UserError as error:
      failures.append(f'failed: {error}')
      continue
    text = report.markdown(attempts)
    program.write_results(
      map(dataclasses.asdict, attempts),
      text,
      report.draw(attempts),
      map(trainer.directory, attempts),
    )
  print('\n'.join([text, *failures]))
  sys.exit(bool(failures))


def _define_flags() -> None:
  program.define_flags()
  flags.DEFINE_string('data', 'cifar10', 'Name of the data.')
  flags.DEFINE_list('conditions', [], 'Conditions; by default all.')


if __name__ == '__main__':
  command_line.run(main, _define_flags)
