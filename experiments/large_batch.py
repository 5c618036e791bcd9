r"""LARS at batches 32 times as large (arXiv 1708.03888), on CIFAR-10.

    python -m experiments.large_batch --workdir=runs/large_batch

A narrow AlexNet-BN trains for the same epochs with batches of 128 by SGD, with
batches of 4,096 by SGD, and with these by LARS, all with the same warm-up and
the published schedule, poly(2). Each has a rate of its own: seed 0 tries all
rates of one grid, and seeds 1 to 3 train with the best. LARS multiplies its
rate by eta, which is .001 in the paper and 1 here, so that one grid serves all
(the paper's rates are 2 to 23: .002 to .023 here).

It writes to --workdir: results.md, results.jsonl (one run a line), plot.png,
curves.png (the compared runs), environment.json, and a directory for each run.
The same command again goes on where it was stopped. A try:

    python -m experiments.large_batch --workdir=runs/try --data=shapes \
        --set=num_epochs=1 --set=data.train_examples=4096 --seeds=1,
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.tools import curves, figures
from experiments.sweeps import program, runner
from experiments.sweeps.experiment import Experiment, Variant, plan

_FLAGS = flags.FLAGS
TUNING_SEED = 0
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
METHODS = {
  'SGD 128': {'batch_size': 128},
  'SGD 4096': {'batch_size': 4096},
  'LARS 4096': {'batch_size': 4096, 'optimizer.lars_eta': 1.0},
}
_WIDTHS = {
  'conv1': 8,
  'conv2': 16,
  'conv3': 16,
  'conv4': 16,
  'conv5': 16,
  'fc6': 64,
  'fc7': 64,
}
EXPERIMENT = Experiment(
  name='large_batch',
  claim='With LARS, AlexNet-BN at batches of 8,192 reaches the accuracy of 512 '
  '(arXiv 1708.03888). Here: a narrow one, batches of 128 and 4,096. Rows that '
  'begin with "tuning" are those of the seed that chose the rates; a rate that '
  'exploded has none.',
  config='configs/alexnet_bn.py',
  variants={},
  overrides={
    **{f'model.{layer}.features': n for layer, n in _WIDTHS.items()},
    # The widths change what sigma .01 and .005 mean.
    'model.init': 'he',
    'data.scale': 64.0,
    'model.conv1.stride': 2,  # and pools that fit: maps of 14, 7, 3 and 1
    'model.pool.size': 2,
    'model.omit': 'dropout',  # so few epochs underfit
    'data.train_examples': 20480,  # 160 batches of 128, 5 of 4,096
    'num_epochs': 12.0,
    'schedule.warmup_epochs': 1.0,
    'schedule.warmup_start': 0.0,
    'checkpoint_every_epochs': 0.0,
    'log_every_steps': 0,  # but every epoch
    'eval_every_epochs': 2.0,
  },
  data='cifar10',
  small={'shapes': {}},
  seeds=(1, 2, 3),
)


def _with_rates(rates: Mapping[str, Iterable[float]], prefix: str = ''):
  """Returns the experiment with a variant for each method and each rate."""
  variants = {
    f'{prefix}{method} at {rate:g}': Variant(
      METHODS[method] | {'optimizer.learning_rate': rate}
    )
    for method, chosen in rates.items()
    for rate in chosen
  }
  return dataclasses.replace(EXPERIMENT, variants=variants)


def _runs(
  experiment: Experiment, workdir: pathlib.Path, seeds: list[int]
) -> list[runner.Run]:
  return plan(
    experiment,
    workdir,
    data=_FLAGS.data,
    seeds=seeds,
    overrides=program.overrides(),
  )


def tune(workdir: pathlib.Path) -> tuple[list[runner.Run], dict[str, float]]:
  """Trains every method at every rate with one seed.

  Returns:
    The runs that did not explode, and each method's best rate.

  Raises:
    UserError: If a run fails for another reason, or all of a method's explode.
  """
  tuning = _with_rates(dict.fromkeys(METHODS, RATES), 'tuning ')
  runs = _runs(tuning, workdir, [TUNING_SEED])
  by_name = {run.variant: run for run in runs}
  errors_of = {}
  for result in program.execute_all(runs):
    name = result['variant']
    measured = runner.measure(by_name[name], result)
    print(measured, flush=True)
    if measured['status'] == 'finished':
      errors_of[name] = measured['value']
    elif 'not finite' not in measured['reason']:
      raise errors.UserError(f'{by_name[name].workdir}: {measured["reason"]}')
  return [r for r in runs if r.variant in errors_of], best_rates(errors_of)


def best_rates(errors_of: Mapping[str, float]) -> dict[str, float]:
  """Returns the rate of the lowest error of each method.

  Args:
    errors_of: Errors by the names of tuning's variants.
  """
  best = {}
  for method in METHODS:
    found = {
      rate: errors_of[name]
      for rate in RATES
      if (name := f'tuning {method} at {rate:g}') in errors_of
    }
    if not found:
      raise errors.UserError(f'{method} exploded at all rates; give fewer.')
    best[method] = min(found, key=found.get)
  return best


def main(_) -> None:
  """Tunes, compares and writes the table and the curves."""
  if _FLAGS.results:
    rows = program.read_results(program.as_result)
    program.rewrite(*program.create_table(EXPERIMENT, rows, _FLAGS.data))
    return
  workdir, seeds = program.workdir(), program.seeds() or [*EXPERIMENT.seeds]
  if TUNING_SEED in seeds:
    raise errors.UserError(
      f'--seeds={TUNING_SEED} is the seed that chooses the rates; give others.'
    )
  tried, rates = tune(workdir)
  comparison = _with_rates({method: [rate] for method, rate in rates.items()})
  runs = _runs(comparison, workdir, seeds)
  results = [*program.execute_all([*runs, *tried])]
  trained = {r.workdir for r in runs if (r.workdir / runner.FINISHED).exists()}
  names = {str(p.relative_to(workdir)): p for p in sorted(trained)}
  figures.write(curves.draw(names), str(workdir / 'curves.png'))
  program.finish(EXPERIMENT, [*runs, *tried], results, _FLAGS.data)


def _define_flags() -> None:
  program.define_flags()
  program.define_data_flag()


if __name__ == '__main__':
  command_line.run(main, _define_flags)
