"""What the race was: a table of epochs and ratios, and the paper's figure."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from matplotlib import axes, figure, ticker

from alexnet_jax import tables
from alexnet_jax.figures import picture
from experiments.figure_1 import race

_PUBLISHED = 6.0  # times
_MIDDLE = 0.5  # epochs from an error's middle to where it stands
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


def markdown(found: Mapping[str, race.Pair]) -> str:
  """Epochs and ratios by condition, and what the tuning tried.

  Args:
    found: of `race.compare`, by condition.
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
    "An epoch's mean error stands at the epoch's end. Were it to stand at the "
    'middle, both would take half an epoch less, and the ratios would be '
    f'{_middles(found)}.',
    '',
    f'Tuning (seed {race.TUNING_SEED}), epochs by rate; after > it was '
    'stopped, empty rates were not tried:',
    '',
    tables.markdown(
      (_HEAD[0], 'activation', *(f'{rate:g}' for rate in race.RATES)),
      [
        (condition, _LABELS[name], *(_tuned(line, rate) for rate in race.RATES))
        for condition, pair in found.items()
        for name, line in pair.items()
      ],
      'll' + 'r' * len(race.RATES),
    ),
  ]
  return '\n'.join(lines) + '\n'


def _results(condition: str, pair: race.Pair) -> list[str]:
  relu, tanh = pair['relu'], pair['tanh']
  lines = (relu, tanh)
  seen = {attempt.seed for line in lines for attempt in line.attempts}
  seeds = ', '.join(map(str, sorted(seen)))
  cells = [condition, *_line(relu), *_line(tanh), _ratio(pair)]
  return [*cells, f'{_PUBLISHED:g}', seeds]


def _line(line: race.Line) -> tuple[str, str]:
  """The rate, where one was found, and the epochs that it takes."""
  first, *_ = line.attempts
  rate = f'{first.rate:g}' if line.arrives else 'none'
  return rate, _spread([_takes(attempt) for attempt in line.attempts])


Bounded = tuple[str, float]  # '', or '>' or '<' of a bound; '?'


def _takes(attempt: race.Attempt, less: float = 0.0) -> Bounded:
  """Epochs; of one that did not arrive, more than its limit."""
  if attempt.epochs:
    return '', attempt.epochs - less
  return '>', attempt.limit - less


def _ratio(pair: race.Pair, less: float = 0.0) -> str:
  """tanh's epochs over ReLU's: mean and spread over seeds, or each by itself.

  Args:
    pair: of `race.compare`.
    less: epochs that both take less.
  """
  relu, tanh = pair['relu'].attempts, pair['tanh'].attempts
  if not (pair['relu'].arrives and pair['tanh'].arrives):
    # Where nothing arrived, only the tuning seed ran: against the slowest.
    relu, tanh = [_slowest(relu)], [_slowest(tanh)]
  return _spread(
    [
      _quotient(_takes(slow, less), _takes(fast, less))
      for slow, fast in zip(tanh, relu, strict=True)
    ]
  )


def _slowest(attempts: Sequence[race.Attempt]) -> race.Attempt:
  return max(attempts, key=lambda attempt: _takes(attempt)[1])


def _quotient(slow: Bounded, fast: Bounded) -> Bounded:
  """Where both are bounds, nothing is known."""
  bounds = {('', ''): '', ('>', ''): '>', ('', '>'): '<'}
  return bounds.get((slow[0], fast[0]), '?'), slow[1] / fast[1]


def _spread(values: Sequence[Bounded]) -> str:
  """Mean and standard deviation; where any is a bound, all of them."""
  numbers = [number for _, number in values]
  if any(bound for bound, _ in values):
    told = [_bounded(*value) for value in values]
    return told[0] if len(set(told)) == 1 else ', '.join(told)
  mean = f'{statistics.fmean(numbers):.3g}'
  if len(numbers) == 1:
    return mean
  return f'{mean} ± {statistics.stdev(numbers):.2g}'


def _bounded(bound: str, number: float) -> str:
  return bound if bound == '?' else f'{bound} {number:.3g}'.strip()


def _middles(found: Mapping[str, race.Pair]) -> str:
  told = [
    f'{_ratio(pair, _MIDDLE)} ({condition})'
    for condition, pair in found.items()
  ]
  return ', '.join(told)


def _tuned(line: race.Line, rate: float) -> str:
  for attempt in line.tuning:
    if attempt.rate == rate:
      return 'exploded' if attempt.exploded else _bounded(*_takes(attempt))
  return ''


def draw(found: Mapping[str, race.Pair]) -> figure.Figure:
  """The paper's Figure 1 under each condition, a line for each seed."""
  size = (3.2 * len(found) + 0.4, 3.2)
  chart = figure.Figure(size, layout='constrained')
  panels = chart.subplots(1, len(found), sharey=True, squeeze=False)[0]
  for panel, (condition, pair) in zip(panels, found.items(), strict=True):
    for line in pair.values():
      for attempt in line.attempts:
        _plot(panel, attempt)
    _finish(panel, condition)
  panels[0].set_ylabel('training error')
  panels[0].legend(frameon=False)
  return chart


def _plot(panel: axes.Axes, attempt: race.Attempt) -> None:
  label = _LABELS[attempt.activation]
  if label in panel.get_legend_handles_labels()[1]:
    label = None
  panel.plot(
    [epoch for epoch, _ in attempt.curve],
    [error for _, error in attempt.curve],
    color='black',
    linestyle=_STYLES[attempt.activation],
    linewidth=1,
    label=label,
  )


def _finish(panel: axes.Axes, condition: str) -> None:
  panel.axhline(race.TARGET, color=picture.GREY, linewidth=1, linestyle=':')
  panel.set(title=condition, xlabel='epoch', xlim=(0, None), ylim=(0, 0.9))
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  panel.grid(color='0.92')
  panel.spines[['top', 'right']].set_visible(False)
