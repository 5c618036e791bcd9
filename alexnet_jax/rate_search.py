"""How many epochs a training error takes, and the rate that takes fewest."""

import math
from collections.abc import Callable, Mapping, Sequence

Rows = Sequence[Mapping[str, object]]  # of a run's metrics.jsonl


def crossing(rows: Rows, target: float) -> float:
  """The epoch at which the training error first comes down to `target`.

  Args:
    rows: with an epoch's mean error each; between two, the error is a line.
    target: error in [0, 1].

  Returns:
    The epoch, or infinity.
  """
  before = None
  for row in rows:
    if row['split'] != 'train':
      continue
    if row['top1_error'] <= target:
      return _between(before, row, target) if before else row['epoch']
    before = row
  return math.inf


def _between(
  before: Mapping[str, object], after: Mapping[str, object], target: float
) -> float:
  errors = before['top1_error'] - after['top1_error']
  share = (before['top1_error'] - target) / errors
  return before['epoch'] + share * (after['epoch'] - before['epoch'])


def search(
  epochs: Callable[[float, float], float],
  rates: Sequence[float],
  start: float,
  limit: float,
) -> dict[float, float]:
  """Tries rates from `start` upwards, then downwards, while that helps.

  Both neighbours of the best rate are tried, unless it is the first or last.
  Where no rate has arrived yet, smaller ones are tried to the end.

  Args:
    epochs: of (rate, most epochs that are of interest); infinity for more.
    rates: the grid, ascending.
    start: one of them.
    limit: most epochs that are of interest.

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
