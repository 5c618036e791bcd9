"""Images with the five most likely classes (paper, Figure 4, left)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib import axes, figure

from alexnet_jax import evaluate, parallel, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.figures import picture

TOP = 5  # classes
_COLUMNS = 4
_OWN, _OTHER = '#f4a582', '#c6dbef'


class Example(NamedTuple):
  """An image with what a network says.

  Attributes:
    image: [S, S, 3] of uint8.
    label: number of its class.
    probabilities: [classes].
  """

  image: np.ndarray
  label: int
  probabilities: np.ndarray


def choose(
  run: trained.Trained,
  prepared: records.PreparedSet,
  *,
  count: int = 8,
  seed: int = 0,
  only_wrong: bool = False,
  batch_size: int = 128,
) -> list[Example]:
  """Images of `config.eval.split`, drawn by `seed`.

  Args:
    run: the network; its config's `eval.views` are averaged.
    prepared: the data.
    count: how many, or all where there are fewer.
    seed: keys the order in which images are considered.
    only_wrong: whether to leave out what the network gets right.
    batch_size: images at a time where some are left out.

  Returns:
    The chosen, none where `only_wrong` leaves none.

  Raises:
    UserError: where batches do not divide among the devices.
  """
  parallel.check_batch_size(run.plan, batch_size)
  slices = run.plan.num_slices
  size = batch_size if only_wrong else -(-count // slices) * slices
  chosen = []
  for example in _shuffled(run, prepared, seed, size):
    if not only_wrong or example.probabilities.argmax() != example.label:
      chosen.append(example)
    if len(chosen) == count:
      break
  return chosen


def _shuffled(
  run: trained.Trained, prepared: records.PreparedSet, seed: int, size: int
) -> Iterator[Example]:
  split = run.config.eval.split
  labels = prepared.open_split(split).labels
  predictor = evaluate.create_predictor(run)
  order = np.random.default_rng(seed).permutation(len(labels))
  for start in range(0, len(order), size):
    rows = order[start : start + size]
    images = pipeline.read_images(prepared, split, rows)
    padding = ((0, size - len(rows)), (0, 0), (0, 0), (0, 0))
    probabilities = np.exp(predictor(np.pad(images, padding)))
    for i, row in enumerate(rows):
      yield Example(images[i], int(labels[row]), probabilities[i])


def draw(run: trained.Trained, examples: list[Example]) -> figure.Figure:
  """Image, true class and five bars for each; the true class's is orange."""
  columns = min(_COLUMNS, len(examples))
  rows = math.ceil(len(examples) / columns)
  chart = figure.Figure((2.1 * columns, 3.5 * rows), layout='constrained')
  chart.get_layout_engine().set(h_pad=0.06)
  cells = chart.subplots(
    2 * rows,
    columns,
    squeeze=False,
    gridspec_kw={'height_ratios': (2.0, 1.2) * rows},
  )
  for axis in cells.flat:
    axis.set_axis_off()
  for i, example in enumerate(examples):
    row, column = divmod(i, columns)
    _draw_example(
      cells[2 * row, column],
      cells[2 * row + 1, column],
      example,
      run.readable_names,
    )
  return chart


def _draw_example(
  above: axes.Axes, below: axes.Axes, example: Example, names: list[str]
) -> None:
  above.set_axis_on()
  picture.show(above, example.image)
  name = picture.short(names[example.label], 22)
  above.set_xlabel(name, fontsize=10, fontweight='bold')
  # Stable: ties go to the lower label, as in `metrics`.
  order = np.argsort(-example.probabilities, kind='stable')[:TOP]
  colours = [_OWN if label == example.label else _OTHER for label in order]
  below.barh(
    range(len(order)), example.probabilities[order], 0.86, color=colours
  )
  below.set(xlim=(0, 1), ylim=(TOP - 0.5, -0.5))
  for place, label in enumerate(order):
    text = picture.short(names[label], 24)
    below.text(0.02, place, text, fontsize=8.5, va='center_baseline')
  below.axvline(0, color=picture.GREY, linewidth=1)
