"""How many epochs a training error takes, and the rate that takes fewest."""

import math
from collections.abc import Callable, Sequence


def crossing(curve: Sequence[tuple[float, float]], target: float) -> float:
  """The epoch at which an error first comes down to `target`.

  Args:
    curve: pairs of an epoch and its mean error; between two, it is a line.
    target: error in [0, 1].

  Returns:
    The epoch, or infinity.
  """
  before = None
  for epoch, error in curve:
    if error <= target and before:
      epoch_before, error_before = before
      share = (error_before - target) / (error_before - error)
      return epoch_before + share * (epoch - epoch_before)
    if error <= target:
      return epoch
    before = epoch, error
  return math.inf


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
