"""Images with the nearest ones of the training set (paper, Figure 4, right)."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib import figure, gridspec

from alexnet_jax import errors, predict, trained
from alexnet_jax.analysis import retrieval
from alexnet_jax.data import pipeline, records
from alexnet_jax.figures import picture


class Queries(NamedTuple):
  """Images to look for.

  Attributes:
    images: [Q, S, S, 3] of uint8.
    names: what they are, to be written above them.
    labels: [Q], numbers of their classes; -1 where that is not known.
  """

  images: np.ndarray
  names: list[str]
  labels: np.ndarray


def choose(
  run: trained.Trained,
  prepared: records.PreparedSet,
  *,
  count: int = 6,
  seed: int = 0,
) -> Queries:
  """`count` images of `config.eval.split`, drawn by `seed`."""
  split = run.config.eval.split
  labels = prepared.open_split(split).labels
  rows = np.random.default_rng(seed).permutation(len(labels))[:count]
  images, own = pipeline.read_images(prepared, split, rows), labels[rows]
  return Queries(images, [run.readable_names[label] for label in own], own)


def read(run: trained.Trained, paths: list[str]) -> Queries:
  """Pictures that belong to no data set.

  Raises:
    UserError: where there are none, or one cannot be read.
  """
  if not paths:
    raise errors.UserError('no pictures; give files, folders or -.')
  size = run.config.data.image_size
  images = np.stack([predict.read(path, size) for path in paths])
  names = [pathlib.Path(path).stem for path in paths]
  return Queries(images, names, np.full(len(paths), -1))


def draw(
  run: trained.Trained,
  prepared: records.PreparedSet,
  queries: Queries,
  found: retrieval.Neighbours,
) -> figure.Figure:
  """A row for each query: itself, and its neighbours, nearest first.

  Neighbours of another class than the query's have red labels.

  Args:
    run: the network.
    prepared: the data.
    queries: what was looked for.
    found: of `retrieval.nearest`, among the training images.
  """
  rows, columns = found.records.shape
  grid = _grid(rows, columns)
  labels = prepared.open_split('train').labels
  for row, numbers in enumerate(found.records):
    name, own = queries.names[row], queries.labels[row]
    _place(grid[row, 0], queries.images[row], name, fontweight='bold')
    known = numbers[numbers >= 0]
    images = pipeline.read_images(prepared, 'train', known)
    for column, image in enumerate(images):
      label = labels[known[column]]
      colour = picture.WRONG if own not in (-1, label) else 'black'
      cell = grid[row, column + 2]
      _place(cell, image, run.readable_names[label], color=colour)
  return grid.figure


def _grid(rows: int, columns: int) -> gridspec.GridSpec:
  """A column of queries, a narrow gap, and columns of neighbours."""
  height = 1.37 * rows
  chart = figure.Figure((1.15 * (columns + 1.3), height))
  return chart.add_gridspec(
    rows,
    columns + 2,
    width_ratios=(1, 0.15, *[1] * columns),
    left=0.01,
    right=0.99,
    bottom=0.02 / rows,
    top=1 - 0.25 / height,
    wspace=0.06,
    hspace=0.28,
  )


def _place(
  cell: gridspec.SubplotSpec, image: np.ndarray, name: str, **style: str
) -> None:
  axis = cell.get_gridspec().figure.add_subplot(cell)
  picture.show(axis, image)
  axis.set_title(picture.short(name, 18), fontsize=9, pad=3, **style)
