"""Which classes a network takes for which."""

from typing import NamedTuple

import numpy as np
from matplotlib import figure

from alexnet_jax.figures import picture

# More classes than this make no legible picture.
MAX_CLASSES = 40
_DARK = 0.6  # of a cell, from which its number is white


class Mistake(NamedTuple):
  """How often images of one class were taken for another.

  Attributes:
    label: number of their class.
    taken_for: number of the other.
    count: of images.
    share: of the class's images.
  """

  label: int
  taken_for: int
  count: int
  share: float


def mistakes(confusion: np.ndarray, count: int) -> list[Mistake]:
  """The most frequent ones, at most `count`.

  Args:
    confusion: [classes, classes], how often a label was taken for a class.
    count: how many.
  """
  wrong = confusion - np.diag(confusion.diagonal())
  order = np.argsort(-wrong, axis=None, kind='stable')[:count]
  pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
  totals = confusion.sum(axis=1)
  return [
    Mistake(int(i), int(j), int(wrong[i, j]), float(wrong[i, j] / totals[i]))
    for i, j in pairs
    if wrong[i, j]
  ]


def draw(confusion: np.ndarray, names: list[str]) -> figure.Figure:
  """A row for each class, with the share taken for each column's, in percent.

  Args:
    confusion: [classes, classes], how often a label was taken for a class.
    names: of the classes.
  """
  totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
  shares = confusion / totals
  side = 1.8 + 0.45 * len(names)
  chart = figure.Figure((side, side), layout='constrained')
  axis = chart.subplots()
  axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  short = [picture.short(name, 16) for name in names]
  axis.set_xticks(range(len(names)), short, rotation=90)
  axis.set_yticks(range(len(names)), short)
  axis.set(xlabel='taken for', ylabel='class')
  axis.tick_params(length=0)
  axis.spines[:].set_visible(False)
  for (row, column), share in np.ndenumerate(shares):
    if share >= 0.005:  # else it rounds to nothing
      colour = 'white' if share > _DARK else 'black'
      text = f'{100 * share:.0f}'
      axis.text(
        column, row, text, ha='center', va='center', color=colour, fontsize=9
      )
  return chart
