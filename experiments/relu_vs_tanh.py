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
until both neighbours take longer; other seeds then run at that rate. tanh gives
up after ten times ReLU's epochs.

The paper says neither how its network was initialised nor how inputs were
scaled: CONDITIONS are cuda-convnet's way, today's, and each half of the step
between them, for which the tuning seed alone is run unless --seeds names more.

Writes to --workdir: results.md, results.jsonl (a run a line), plot.png (the
figure), environment.json, and a directory for each run. The same command again
goes on where it was stopped.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence

from absl import app, flags, logging
from matplotlib import axes, figure, ticker

from alexnet_jax import command_line, errors, tables
from alexnet_jax import rows as rows_lib
from alexnet_jax.figures import picture
from alexnet_jax.sweeps import rate_search, sweep
from experiments import sweep_program

TARGET = 0.25
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 0
_PUBLISHED = 6.0  # times
_MOST_EPOCHS = 60.0  # of ReLU's
_PATIENCE = 10.0  # times ReLU's epochs, for tanh
_HEAD = (
  'init and inputs',
  'ReLU: rate',
  'epochs',
  'tanh: rate',
  'epochs',
  'ratio',
  'paper',
  'seeds',
)
_STYLES = {'relu': '-', 'tanh': (0, (4, 1.5))}
_LABELS = {'relu': 'ReLU', 'tanh': 'tanh'}
_FLAGS = flags.FLAGS
Row = dict[str, object]  # see Lab.train


@dataclasses.dataclass(frozen=True)
class Condition:
  """What the paper leaves open.

  Attributes:
    overrides: of configs/cifar10_relu_tanh.py.
    start: the rate that is tried first.
    seeds: that run at the best rate.
  """

  overrides: sweep.Overrides
  start: float
  seeds: Sequence[int] = ()


CONDITIONS = {
  '2012': Condition(
    {'model.init': 'normal', 'data.scale': 1.0}, 3e-3, seeds=(1, 2, 3)
  ),
  'today': Condition(
    {'model.init': 'he', 'data.scale': 64.0}, 1e-2, seeds=(1, 2, 3)
  ),
  'init of today': Condition({'model.init': 'he', 'data.scale': 1.0}, 3e-3),
  'inputs of today': Condition(
    {'model.init': 'normal', 'data.scale': 64.0}, 1e-2
  ),
}


@dataclasses.dataclass(frozen=True)
class Lab:
  """Trains networks.

  Attributes:
    workdir: absolute path of all runs.
    data: as after the colon of --config.
    overrides: fields of every run, over all others.
    execute: as `sweep_program.execute_all`.
    seeds: to run at the best rate; none for each condition's own.
    rows: of all runs so far, by directory.
  """

  workdir: pathlib.Path
  data: str
  overrides: sweep.Overrides
  execute: Callable[[Sequence[sweep.Run]], Iterable[sweep.Result]]
  seeds: Sequence[int] = ()
  rows: dict[pathlib.Path, Row] = dataclasses.field(default_factory=dict)

  def train(
    self,
    condition: str,
    activation: str,
    rate: float,
    seeds: Sequence[int],
    limit: float,
  ) -> list[Row]:
    """Trains with each seed until `TARGET`, or for `limit` epochs.

    Returns:
      For each seed 'condition', 'activation', 'rate', 'seed', 'limit',
      'epochs', which is None for more than the limit, 'exploded', whether that
      is because numbers were not finite, and 'curve', pairs of an epoch and
      its training error.

    Raises:
      UserError: where a run fails, other than by numbers that explode.
    """
    row = {'condition': condition, 'activation': activation, 'rate': rate}
    rows = {seed: row | {'seed': seed, 'limit': limit} for seed in seeds}
    runs = {seed: self._run(row) for seed, row in rows.items()}
    for result in self.execute(list(runs.values())):
      seed = result['seed']
      rows[seed] |= _outcome(runs[seed], result, limit)
      self._keep(rows[seed])
    return list(rows.values())

  def _keep(self, row: Row) -> None:
    self.rows[self.directory(row)] = row
    lines = [json.dumps(row) + '\n' for row in self.rows.values()]
    (self.workdir / 'results.jsonl').write_text(''.join(lines))
    shown = {key: value for key, value in row.items() if key != 'curve'}
    print(json.dumps(shown), flush=True)

  def directory(self, row: Row) -> pathlib.Path:
    """Where the run of a row lies."""
    condition = row['condition'].replace(' ', '_')
    rate = f'{row["activation"]}-{row["rate"]:g}'
    return self.workdir / condition / rate / f'seed-{row["seed"]}'

  def _run(self, row: Row) -> sweep.Run:
    fields = {
      **CONDITIONS[row['condition']].overrides,
      'model.activation': row['activation'],
      'optimizer.learning_rate': row['rate'],
      'seed': row['seed'],
      'num_epochs': float(math.ceil(row['limit'])),
      'stop_at_train_error': TARGET,
      'log_every_steps': 0,  # an epoch's mean is what is compared
      'eval_every_epochs': 0.0,
      **self.overrides,
    }
    directory = self.directory(row)
    config = f'configs/cifar10_relu_tanh.py:{self.data}'
    flags_ = sweep.main_flags(config, directory, fields)
    return sweep.Run(row['condition'], row['seed'], directory, flags_)


def _outcome(run: sweep.Run, result: sweep.Result, limit: float) -> Row:
  exploded = 'not finite' in result.get('reason', '')
  if result['status'] != 'finished' and not exploded:
    raise errors.UserError(f'{run.workdir}: {result["reason"]}')
  logged = rows_lib.parse(run.workdir / 'metrics.jsonl')
  curve = [
    (row['epoch'], row['top1_error'])
    for row in logged
    if row['split'] == 'train'
  ]
  epochs = rate_search.crossing(curve, TARGET)
  reached = epochs if epochs <= limit else None
  return {'epochs': reached, 'exploded': exploded, 'curve': curve}


@dataclasses.dataclass(frozen=True)
class Line:
  """An activation under a condition.

  Attributes:
    tuning: rows of the tuning seed, a rate each.
    rows: at the best rate; those of the other seeds, where there are any.
  """

  tuning: list[Row]
  rows: list[Row]

  @property
  def arrives(self) -> bool:
    """Whether any rate reached `TARGET`."""
    return any(row['epochs'] for row in self.tuning)


def measure(lab: Lab, condition: str, activation: str, limit: float) -> Line:
  """Looks for the best rate, then runs the other seeds."""
  tuning = []

  def epochs(rate: float, most: float) -> float:
    tuning.extend(lab.train(condition, activation, rate, [TUNING_SEED], most))
    return tuning[-1]['epochs'] or math.inf

  about = CONDITIONS[condition]
  found = rate_search.search(epochs, RATES, about.start, limit)
  best = min(found, key=found.get)
  seeds = lab.seeds or about.seeds
  if not seeds or math.isinf(found[best]):
    return Line(tuning, [row for row in tuning if row['rate'] == best])
  return Line(tuning, lab.train(condition, activation, best, seeds, limit))


def compare(lab: Lab, condition: str) -> dict[str, Line]:
  """ReLU, then tanh, which may take `_PATIENCE` times as long.

  Raises:
    UserError: where ReLU does not get there, or a run fails.
  """
  relu = measure(lab, condition, 'relu', _MOST_EPOCHS)
  if None in (row['epochs'] for row in relu.rows):
    tried = ', '.join(f'{row["rate"]:g}' for row in relu.tuning)
    raise errors.UserError(
      f'{condition}: ReLU is above {TARGET:.0%} training error after '
      f'{_MOST_EPOCHS:g} epochs at rates {tried}; give easier --data.'
    )
  fewest = min(row['epochs'] for row in relu.tuning if row['epochs'])
  tanh = measure(lab, condition, 'tanh', _PATIENCE * fewest)
  return {'relu': relu, 'tanh': tanh}


def ratios(lines: dict[str, Line]) -> list[float]:
  """tanh's epochs over ReLU's, by seed; none where tanh gave up."""
  if not lines['tanh'].arrives:
    return []
  pairs = zip(lines['relu'].rows, lines['tanh'].rows, strict=True)
  return [(tanh['epochs'] or math.inf) / relu['epochs'] for relu, tanh in pairs]


def markdown(found: dict[str, dict[str, Line]]) -> str:
  """Epochs and ratios by condition, and what the tuning tried.

  Args:
    found: of `compare`, by condition.
  """
  lines = [
    '"A four-layer convolutional neural network with ReLUs (solid line) '
    'reaches a 25% training error rate on CIFAR-10 six times faster than an '
    'equivalent network with tanh neurons (dashed line)" (paper section 3.1).',
    '',
    tables.markdown(
      _HEAD, itertools.starmap(_results, found.items()), 'lrrrrrrl'
    ),
    '',
    f'Tuning (seed {TUNING_SEED}), epochs by rate; after > it was stopped, '
    'empty rates were not tried:',
    '',
    tables.markdown(
      (_HEAD[0], 'activation', *(f'{rate:g}' for rate in RATES)),
      [
        (condition, _LABELS[name], *(_tuned(line, rate) for rate in RATES))
        for condition, pair in found.items()
        for name, line in pair.items()
      ],
      'll' + 'r' * len(RATES),
    ),
  ]
  return '\n'.join(lines) + '\n'


def _results(condition: str, pair: dict[str, Line]) -> list[str]:
  """Cells; where tanh gave up, its limit stands for the tuning seed alone."""
  relu, tanh = pair['relu'], pair['tanh']
  cells = [condition, *_epochs(relu), *_epochs(tanh)]
  slowest = max(row['epochs'] for row in relu.rows)
  cells.append(_spread(ratios(pair), tanh.rows[0]['limit'] / slowest))
  seeds = ', '.join(str(row['seed']) for row in relu.rows)
  return [*cells, f'{_PUBLISHED:g}', seeds]


def _epochs(line: Line) -> tuple[str, str]:
  """The rate, where one was found, and the epochs that it takes."""
  limit = line.rows[0]['limit']
  if not line.arrives:
    return 'none', _spread([], limit)
  epochs = [row['epochs'] or math.inf for row in line.rows]
  return f'{line.rows[0]["rate"]:g}', _spread(epochs, limit)


def _spread(values: Sequence[float], limit: float) -> str:
  if not values or math.inf in values:
    return f'> {limit:.3g}'
  mean = f'{statistics.fmean(values):.3g}'
  return f'{mean} ± {statistics.stdev(values):.2g}' if len(values) > 1 else mean


def _tuned(line: Line, rate: float) -> str:
  for row in line.tuning:
    if row['rate'] == rate:
      if row['epochs']:
        return f'{row["epochs"]:.3g}'
      return 'exploded' if row['exploded'] else f'> {row["limit"]:.3g}'
  return ''


def draw(found: dict[str, dict[str, Line]]) -> figure.Figure:
  """The paper's Figure 1 under each condition, a line for each seed."""
  size = (3.2 * len(found) + 0.4, 3.2)
  chart = figure.Figure(size, layout='constrained')
  panels = chart.subplots(1, len(found), sharey=True, squeeze=False)[0]
  for panel, (condition, pair) in zip(panels, found.items(), strict=True):
    for activation, line in pair.items():
      for row in line.rows:
        _plot(panel, row['curve'], activation)
    _finish(panel, condition)
  panels[0].set_ylabel('training error')
  panels[0].legend(frameon=False)
  return chart


def _plot(
  panel: axes.Axes, curve: Sequence[tuple[float, float]], activation: str
) -> None:
  label = _LABELS[activation]
  if label in panel.get_legend_handles_labels()[1]:
    label = None
  panel.plot(
    [epoch for epoch, _ in curve],
    [error for _, error in curve],
    color='black',
    linestyle=_STYLES[activation],
    linewidth=1,
    label=label,
  )


def _finish(panel: axes.Axes, condition: str) -> None:
  panel.axhline(TARGET, color=picture.GREY, linewidth=1, linestyle=':')
  panel.set(title=condition, xlabel='epoch', xlim=(0, None), ylim=(0, 0.9))
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  panel.grid(color='0.92')
  panel.spines[['top', 'right']].set_visible(False)


def _write(lab: Lab, found: dict[str, dict[str, Line]]) -> str:
  text = markdown(found)
  sweep_program.write_results(list(lab.rows.values()), text, draw(found))
  return text


def _conditions() -> list[str]:
  for name in _FLAGS.conditions:
    if name not in CONDITIONS:
      raise errors.UserError(
        f'--conditions={name} does not exist; choose from '
        f'{", ".join(CONDITIONS)}.'
      )
  return _FLAGS.conditions or list(CONDITIONS)


def main(argv: list[str]) -> None:
  """One condition after the other; exit code 1 where one came to nothing."""
  logging.set_verbosity(logging.WARNING)
  found, failures, text = {}, [], ''
  with command_line.one_sentence():
    command_line.check_no_arguments(argv)
    lab = Lab(
      sweep_program.workdir(),
      _FLAGS.data,
      sweep_program.overrides(),
      sweep_program.execute_all,
      sweep_program.seeds(),
    )
    for condition in _conditions():
      try:
        pair = compare(lab, condition)
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
  app.run(main)
