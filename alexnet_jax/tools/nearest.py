r"""Draws images with the nearest training images (paper, Figure 4, right).

    python -m alexnet_jax.tools.nearest --workdir=runs/alexnet \
        --features=train.npy
    python -m alexnet_jax.tools.nearest --workdir=runs/alexnet \
        --features=train.npy cat.jpg holiday/

Queries are validation images drawn by --seed, or the files, folders and `-`
that are given as arguments (see `predict`). Distances are Euclidean, between
the outputs of the last hidden layer, or of --layer, for centre patches.
--features names a file that keeps those of the training set (21 GB for
ImageNet's 1.28 million times 4096): it is written if it does not exist, and the
next query is fast.
"""

import itertools
from typing import Any

import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.tools import features, figures, predict
from alexnet_jax.tools import flags as tool_flags

FLAGS = flags.FLAGS


def choose(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  count: int = 6,
  seed: int = 0,
) -> list[predict.Picture]:
  """Returns `count` images of `config.eval.split`, drawn by `seed`."""
  return list(itertools.islice(predict.shuffled(run, prepared, seed), count))


def nearest(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  queries: list[predict.Picture],
  *,
  count: int = 6,
  layer: str = '',
  batch_size: int = 128,
  path: str = '',
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the training images that are nearest to each query.

  Args:
    run: Network.
    prepared: Data set.
    queries: Pictures to look for.
    count: Number of neighbours, k.
    layer: Layer whose outputs are compared, '' for the last hidden one.
    batch_size: Training images at a time.
    path: File that keeps the features of the training set, '' for none.

  Returns:
    Numbers of training images and distances [Q, k], nearest first. Ties go to
    the lower number; but what a network makes of an image can differ in the
    last bit with its place in a batch.

  Raises:
    UserError: If there is no such layer, if batches cannot be divided among
      the devices, or if the file belongs to something else.
  """
  from scipy.spatial import distance

  layer = layer or features.last_hidden(run.config.model)
  extract = trained.create_extractor(run, layer, batch_size)
  wanted = extract(np.stack([query.pixels for query in queries]))
  wanted = wanted.reshape(len(queries), -1)
  if path:
    rows = features.stored(path, run, prepared, layer, 'train', batch_size)
    starts = range(0, len(rows), batch_size)
    stream = (rows[i : i + batch_size] for i in starts)
  else:
    stream = features.batches(extract, run, prepared, 'train', batch_size)
  scores = (
    {'score': -distance.cdist(wanted, made.reshape(len(made), -1))}
    for made in stream
  )
  best = features.rank(scores, count)
  return best['record'], -best['score']


def draw(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  queries: list[predict.Picture],
  neighbours: np.ndarray,
) -> figures.Figure:
  """Draws a row for each query: itself, then its neighbours, nearest first.

  Args:
    run: Network.
    prepared: Data set.
    queries: Pictures that were looked for.
    neighbours: [Q, k], numbers of training images; those of another class than
      the query's get a red label.
  """
  rows, columns = neighbours.shape
  chart = figures.create(1.15 * (columns + 1.3), 1.37 * rows)
  # The second column is a gap.
  cells = chart.subplots(
    rows,
    columns + 2,
    squeeze=False,
    gridspec_kw={'width_ratios': (1, 0.15, *[1] * columns)},
  )
  chart.subplots_adjust(
    0.01, 0.02 / rows, 0.99, 1 - 0.18 / rows, wspace=0.06, hspace=0.28
  )
  labels = prepared.open_split('train').labels
  for axes, query, numbers in zip(cells, queries, neighbours, strict=True):
    axes[1].set_axis_off()
    _show(axes[0], query.pixels, predict.caption(run, query), weight='bold')
    images = pipeline.read_images(prepared, 'train', numbers)
    for axis, image, label in zip(
      axes[2:], images, labels[numbers], strict=True
    ):
      colour = figures.WRONG if query.label not in (-1, label) else 'black'
      _show(axis, image, run.readable_names[label], color=colour)
  return chart


def _show(axis: Any, image: np.ndarray, name: str, **style: str) -> None:
  figures.show(axis, image)
  axis.set_title(figures.short(name, 18), fontsize=9, pad=3, **style)


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_picture('nearest.png')
  tool_flags.define_data()
  tool_flags.define_examples(count=6)
  flags.DEFINE_integer('neighbours', 6, 'Number for each.', lower_bound=1)
  flags.DEFINE_string('layer', '', 'Layer; by default the last hidden one.')
  flags.DEFINE_string('features', '', 'A .npy file that keeps the features.')


def main(arguments: list[str]) -> None:
  """Writes the picture."""
  run = tool_flags.load_run()
  prepared, size = run.open_data(), run.config.data.image_size
  if arguments:
    queries = [predict.read(path, size) for path in predict.find(arguments)]
  else:
    queries = choose(run, prepared, FLAGS.count, FLAGS.seed)
  if not queries:
    raise errors.UserError('no pictures; give files, folders or -.')
  neighbours, _ = nearest(
    run,
    prepared,
    queries,
    count=FLAGS.neighbours,
    layer=FLAGS.layer,
    batch_size=FLAGS.batch_size,
    path=FLAGS.features,
  )
  figures.write(draw(run, prepared, queries, neighbours), FLAGS.output)


if __name__ == '__main__':
  command_line.run(main, define_flags, takes_arguments=True)
