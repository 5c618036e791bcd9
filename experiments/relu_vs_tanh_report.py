"""The table of `relu_vs_tanh`, and the paper's Figure 1."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet_jax.tools import figures, tables

TARGET = 0.25  # training error
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 0

_PUBLISHED = 6.0  # times
# Epochs from the middle of an epoch to its end.
_HALF = 0.5
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
_LABELS = {'relu': 'ReLU', 'tanh': 'tanh'}
_LINES = {'relu': '-', 'tanh': (0, (4, 1.5))}


@dataclasses.dataclass(frozen=True)
class Attempt:
  """One training run, and how long it took.

  Attributes:
    condition: Name of the condition.
    activation: 'relu' or 'tanh'.
    rate: Learning rate.
    seed: Seed of the run.
    limit: Most epochs that are of interest.
    epochs: Epochs to `TARGET`, or None for more than `limit`.
    exploded: Whether the numbers stopped being finite.
    curve: Pairs of an epoch and the mean training error over it.
  """

  condition: str
  activation: str
  rate: float
  seed: int
  limit: float
  epochs: float | None = None
  exploded: bool = False
  curve: Sequence[tuple[float, float]] = ()


class _Trials(NamedTuple):
  """The attempts with one activation under one condition.

  Attributes:
    tuning: Attempts of the tuning seed, one for each rate.
    compared: Attempts of the other seeds at the best rate. If no rate reached
      the target, the first attempt of the tuning seed.
  """

  tuning: Sequence[Attempt]
  compared: Sequence[Attempt]


_Pairs = dict[str, dict[str, _Trials]]  # by condition, then by activation


def _group(attempts: Sequence[Attempt]) -> _Pairs:
  conditions = dict.fromkeys(attempt.condition for attempt in attempts)
  return {
    condition: {
      activation: _select(attempts, condition, activation)
      for activation in _LABELS
    }
    for condition in conditions
  }


def _select(
  attempts: Sequence[Attempt], condition: str, activation: str
) -> _Trials:
  own = [
    attempt
    for attempt in attempts
    if (attempt.condition, attempt.activation) == (condition, activation)
  ]
  tuning = [attempt for attempt in own if attempt.seed == TUNING_SEED]
  others = [attempt for attempt in own if attempt.seed != TUNING_SEED]
  others.sort(key=lambda attempt: attempt.seed)
  return _Trials(tuning, others or tuning[:1])


def markdown(attempts: Sequence[Attempt]) -> str:
  """Returns results.md: epochs and ratios, and what the tuning tried.

  Args:
    attempts: All attempts; those of the tuning seed in the order of training.
  """
  pairs = _group(attempts)
  middles = [
    f'{_ratio(pair, _HALF)} ({condition})' for condition, pair in pairs.items()
  ]
  parts = [
    '"A four-layer convolutional neural network with ReLUs (solid line) '
    'reaches a 25% training error rate on CIFAR-10 six times faster than an '
    'equivalent network with tanh neurons (dashed line)" (paper section 3.1).',
    tables.markdown(
      _HEAD,
      [_cells(condition, pair) for condition, pair in pairs.items()],
      'lrrrrrrl',
    ),
    "An epoch's mean error stands at the epoch's end. Were it to stand at the "
    'middle, both would take half an epoch less, and the ratios would be '
    f'{", ".join(middles)}.',
    f'Tuning (seed {TUNING_SEED}), epochs by rate; after > it was stopped, '
    'empty rates were not tried:',
    tables.markdown(
      (_HEAD[0], 'activation', *(f'{rate:g}' for rate in RATES)),
      [
        (condition, _LABELS[name], *(_tuned(trials, rate) for rate in RATES))
        for condition, pair in pairs.items()
        for name, trials in pair.items()
      ],
      'll' + 'r' * len(RATES),
    ),
  ]
  return '\n\n'.join(parts) + '\n'


def _cells(condition: str, pair: dict[str, _Trials]) -> list[str]:
  """Returns one row of the first table."""
  cells, seeds = [condition], set()
  for trials in pair.values():
    rate = f'{trials.compared[0].rate:g}'
    cells += [rate if _arrives(trials.tuning) else 'none', _epochs(trials)]
    seeds |= {attempt.seed for attempt in trials.compared}
  listed = ', '.join(map(str, sorted(seeds)))
  return [*cells, _ratio(pair), f'{_PUBLISHED:g}', listed]


def _arrives(attempts: Sequence[Attempt]) -> bool:
  return any(attempt.epochs for attempt in attempts)


def _epochs(trials: _Trials) -> str:
  """Returns mean and spread of the epochs; all of them if one is a bound."""
  if all(attempt.epochs for attempt in trials.compared):
    return _mean_and_spread([attempt.epochs for attempt in trials.compared])
  return ', '.join(map(_takes, trials.compared))


def _takes(attempt: Attempt) -> str:
  """Returns an attempt's epochs, or that they are more than its limit."""
  return f'{attempt.epochs:.3g}' if attempt.epochs else f'> {attempt.limit:.3g}'


def _ratio(pair: dict[str, _Trials], less: float = 0.0) -> str:
  """Returns tanh's epochs over ReLU's; 'unknown' if a seed did not arrive.

  Args:
    pair: Trials with ReLU and with tanh.
    less: Epochs to subtract from both.
  """
  relu, tanh = pair['relu'].compared, pair['tanh'].compared
  if not all(attempt.epochs for attempt in (*relu, *tanh)):
    return 'unknown'
  return _mean_and_spread(
    [
      (slow.epochs - less) / (fast.epochs - less)
      for slow, fast in zip(tanh, relu, strict=True)
    ]
  )


def _mean_and_spread(values: Sequence[float]) -> str:
  mean = f'{statistics.fmean(values):.3g}'
  if len(values) == 1:
    return mean
  return f'{mean} ± {statistics.stdev(values):.2g}'


def _tuned(trials: _Trials, rate: float) -> str:
  """Returns what the tuning seed did at a rate; '' if it did not try it."""
  for attempt in trials.tuning:
    if attempt.rate == rate:
      return 'exploded' if attempt.exploded else _takes(attempt)
  return ''


def draw(attempts: Sequence[Attempt]) -> figures.Figure:
  """Returns the paper's Figure 1 for each condition, with a line a seed."""
  pairs = _group(attempts)
  width = 3.2 * len(pairs) + 0.4
  chart = figures.create(width, 3.2, layout='constrained')
  panels = chart.subplots(1, len(pairs), sharey=True, squeeze=False)[0]
  for panel, (condition, pair) in zip(panels, pairs.items(), strict=True):
    for name, trials in pair.items():
      for number, attempt in enumerate(trials.compared):
        panel.plot(
          *zip(*attempt.curve, strict=True),
          color='black',
          linestyle=_LINES[name],
          linewidth=1,
          label=None if number else _LABELS[name],
        )
    _finish(panel, condition)
  panels[0].set_ylabel('training error')
  panels[0].legend(frameon=False)
  return chart


def _finish(panel: Any, condition: str) -> None:
  from matplotlib import ticker

  panel.axhline(TARGET, color=figures.GREY, linewidth=1, linestyle=':')
  panel.set(title=condition, xlabel='epoch', xlim=(0, None), ylim=(0, 0.9))
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  panel.grid(color='0.92')
  panel.spines[['top', 'right']].set_visible(False)
