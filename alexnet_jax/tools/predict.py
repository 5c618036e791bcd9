r"""Prints the most likely classes of pictures, or draws them.

    python -m alexnet_jax.tools.predict --workdir=runs/alexnet cat.jpg holiday/
    find . -name '*.png' | \
        python -m alexnet_jax.tools.predict --workdir=runs/alexnet -
    python -m alexnet_jax.tools.predict --workdir=runs/alexnet \
        --output=predictions.png --only_wrong

Arguments are files, folders (searched for pictures, to any depth) and `-`, for
a list of files on standard input: one a line, or as `find -print0` writes it.
Without arguments, validation images are drawn at random by --seed.

Prints the most likely classes of each picture, or with --json one JSON object a
line. With --output it draws them instead, as the paper's Figure 4 (left) does:
the bar of the true class is orange. A file that is no picture and a folder
without pictures are named on standard error and left out; the exit code is then
1.
"""

import codecs
import contextlib
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, trained
from alexnet_jax.data import images, pipeline, records, sources
from alexnet_jax.tools import figures
from alexnet_jax.tools import flags as tool_flags

FLAGS = flags.FLAGS
_BARS = 5
_COLUMNS = 4
_TRUE, _OTHER = '#f4a582', '#c6dbef'


class Picture(NamedTuple):
  """An image to classify.

  Attributes:
    name: Path of the file, or split and number of a data set's image.
    pixels: [S, S, 3] of uint8.
    label: Number of the true class, -1 if it is not known.
  """

  name: str
  pixels: np.ndarray
  label: int = -1


# Picture and probabilities [classes].
Prediction = tuple[Picture, np.ndarray]


def find(arguments: Iterable[str]) -> Iterator[str]:
  """Yields the paths of files, of the pictures in folders, and of `-`.

  Raises:
    UserError: If a folder holds no pictures.
  """
  for argument in arguments:
    if argument == '-':
      yield from _listed(sys.stdin.buffer.read())
    elif pathlib.Path(argument).is_dir():
      yield from _search(pathlib.Path(argument))
    else:
      yield argument


def _listed(text: bytes) -> list[str]:
  """Returns the names of a list, which ends each with NUL, LF or CR LF."""
  text = text.removeprefix(codecs.BOM_UTF8)
  names = text.split(b'\0') if b'\0' in text else text.splitlines()
  return [os.fsdecode(name) for name in names if name]


def _search(folder: pathlib.Path) -> list[str]:
  paths = [str(path) for path in sources.find_images(folder)]
  if not paths:
    raise errors.UserError(f'{folder} holds no pictures; give another folder.')
  return paths


def read(path: str, size: int) -> Picture:
  """Reads a file and scales it as `prepare` does, to `size` x `size` pixels.

  Raises:
    UserError: If the file cannot be read as an image.
  """
  return Picture(path, images.read(path, size))


def read_all(
  arguments: Iterable[str], size: int, failed: list[str]
) -> Iterator[Picture]:
  """Yields the pictures of arguments; adds to `failed` what is no picture."""
  for argument in arguments:
    with _reported(argument, failed):
      for path in find([argument]):
        with _reported(path, failed):
          yield read(path, size)


@contextlib.contextmanager
def _reported(name: str, failed: list[str]) -> Iterator[None]:
  """Prints a user's mistake about a file, and adds its name to `failed`."""
  try:
    yield
  except errors.UserError as error:
    print(f'error: {str(error).removesuffix(".")}.', file=sys.stderr)
    failed.append(name)


def shuffled(
  run: trained.TrainedRun, prepared: records.PreparedSet, seed: int
) -> Iterator[Picture]:
  """Yields all images of `config.eval.split` in an order keyed by `seed`."""
  split = run.config.eval.split
  labels = prepared.open_split(split).labels
  for row in np.random.default_rng(seed).permutation(len(labels)):
    (pixels,) = pipeline.read_images(prepared, split, np.array([row]))
    yield Picture(f'{split}/{row}', pixels, int(labels[row]))


def predict(
  run: trained.TrainedRun, pictures: Iterable[Picture], batch_size: int
) -> Iterator[Prediction]:
  """Yields each picture with the probabilities of all classes.

  Args:
    run: Network; the views that `config.eval.views` says are averaged.
    pictures: Pictures of `config.data.image_size` pixels.
    batch_size: Pictures at a time.
  """
  pictures = iter(pictures)
  while batch := list(itertools.islice(pictures, batch_size)):
    probabilities = run.predict([x.pixels for x in batch], batch_size)
    yield from zip(batch, probabilities, strict=True)


def choose(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  *,
  count: int = 8,
  seed: int = 0,
  only_wrong: bool = False,
  batch_size: int = 128,
) -> list[Prediction]:
  """Returns `count` predictions for images of `config.eval.split`.

  Args:
    run: Network.
    prepared: Data set of the images.
    count: Number of images; fewer are returned if there are not enough.
    seed: Number that keys which images are drawn.
    only_wrong: Whether to leave out what is classified correctly.
    batch_size: Images at a time.
  """
  pictures = shuffled(run, prepared, seed)
  if not only_wrong:
    pictures = itertools.islice(pictures, count)
  found = predict(run, pictures, batch_size)
  if only_wrong:
    found = (pair for pair in found if pair[1].argmax() != pair[0].label)
  return list(itertools.islice(found, count))


def most_likely(probabilities: np.ndarray, count: int) -> np.ndarray:
  """Returns the labels of the `count` most likely classes, best first."""
  # Stable: ties go to the lower label, as in `metrics`.
  return np.argsort(-probabilities, kind='stable')[:count]


def caption(run: trained.TrainedRun, picture: Picture) -> str:
  """Returns the true class of a picture, or its file's name."""
  if picture.label < 0:
    return pathlib.Path(picture.name).stem
  return run.readable_names[picture.label]


def draw(
  run: trained.TrainedRun, predictions: list[Prediction]
) -> figures.Figure:
  """Draws pictures, each above the bars of its five most likely classes."""
  columns = min(_COLUMNS, len(predictions))
  rows = math.ceil(len(predictions) / columns)
  chart = figures.create(2.1 * columns, 3.5 * rows, layout='constrained')
  chart.get_layout_engine().set(h_pad=0.06)
  ratios = {'height_ratios': (2.0, 1.2) * rows}
  cells = chart.subplots(2 * rows, columns, squeeze=False, gridspec_kw=ratios)
  for axis in cells.flat:
    axis.set_axis_off()
  for i, (picture, probabilities) in enumerate(predictions):
    row, column = divmod(i, columns)
    above, below = cells[2 * row : 2 * row + 2, column]
    above.set_axis_on()
    figures.show(above, picture.pixels)
    name = figures.short(caption(run, picture), 22)
    above.set_xlabel(name, fontsize=10, fontweight='bold')
    _draw_bars(below, probabilities, picture.label, run.readable_names)
  return chart


def _draw_bars(
  axis: Any, probabilities: np.ndarray, label: int, names: list[str]
) -> None:
  order = most_likely(probabilities, _BARS)
  colours = [_TRUE if other == label else _OTHER for other in order]
  axis.barh(range(len(order)), probabilities[order], 0.86, color=colours)
  axis.set(xlim=(0, 1), ylim=(_BARS - 0.5, -0.5))
  for place, other in enumerate(order):
    text = figures.short(names[other], 24)
    axis.text(0.02, place, text, fontsize=8.5, va='center_baseline')
  axis.axvline(0, color=figures.GREY, linewidth=1)


def _print(run: trained.TrainedRun, prediction: Prediction) -> None:
  picture, probabilities = prediction
  classes = [
    {
      'class': run.class_names[label],
      'name': run.readable_names[label],
      'probability': float(probabilities[label]),
    }
    for label in most_likely(probabilities, FLAGS.top)
  ]
  if FLAGS.json:
    result = json.dumps({'path': picture.name, 'predictions': classes})
  else:
    lines = [f'{100 * c["probability"]:6.2f}%  {c["name"]}' for c in classes]
    result = '\n'.join([picture.name, *lines])
  print(result, flush=True)


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_picture(None)
  tool_flags.define_views()
  tool_flags.define_data()
  tool_flags.define_examples(count=8)
  flags.DEFINE_bool(
    'only_wrong', False, 'Leave out validation images that are classified well.'
  )
  flags.DEFINE_integer('top', 5, 'Classes to print.', lower_bound=1)
  flags.DEFINE_bool('json', False, 'Print JSON lines instead of text.')


def _check_flags(arguments: list[str]) -> None:
  for name in ('count', 'seed', 'only_wrong'):
    if arguments and FLAGS[name].present:
      raise errors.UserError(
        f'--{name}={FLAGS[name].value} chooses validation images; leave it out '
        'where pictures are given.'
      )


def main(arguments: list[str]) -> None:
  """Prints or draws the predictions."""
  _check_flags(arguments)
  run, failed = tool_flags.load_run(), []
  if arguments:
    pictures = read_all(arguments, run.config.data.image_size, failed)
    found = predict(run, pictures, FLAGS.batch_size)
  else:
    found = choose(
      run,
      run.open_data(),
      count=FLAGS.count,
      seed=FLAGS.seed,
      only_wrong=FLAGS.only_wrong,
      batch_size=FLAGS.batch_size,
    )
  if not FLAGS.output:
    for prediction in found:
      _print(run, prediction)
  elif drawn := list(found):
    figures.write(draw(run, drawn), FLAGS.output)
  else:
    raise errors.UserError(
      f'--output={FLAGS.output} would be empty; give other pictures, or leave '
      'out --only_wrong.'
    )
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  command_line.run(main, define_flags, takes_arguments=True)
