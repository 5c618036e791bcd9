"""Says what is on pictures that belong to no data set."""

import math
import pathlib
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from alexnet_jax import errors, evaluate, parallel, trained
from alexnet_jax.data import images, sources


def find(arguments: Iterable[str]) -> Iterator[str]:
  """Paths of files, folders searched and `-` read.

  Raises:
    UserError: where a folder holds no pictures.
  """
  for argument in arguments:
    if argument == '-':
      yield from filter(None, (line.rstrip('\n') for line in sys.stdin))
    elif pathlib.Path(argument).is_dir():
      yield from _search(pathlib.Path(argument))
    else:
      yield argument


def _search(folder: pathlib.Path) -> list[str]:
  paths = sorted(map(str, filter(sources.is_image, folder.rglob('*'))))
  if not paths:
    raise errors.UserError(f'{folder} holds no pictures; give another folder.')
  return paths


def read(path: str, size: int) -> np.ndarray:
  """A picture as data are prepared, uncompressed: [size, size, 3] of uint8.

  Raises:
    UserError: where it cannot be read.
  """
  try:
    encoded = pathlib.Path(path).read_bytes()
    return images.resize_and_crop(images.decode(encoded), size).numpy()
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}') from error
  except tf.errors.InvalidArgumentError as error:
    raise errors.UserError(f'{path} cannot be read as an image') from error


def predict(
  run: trained.Trained, paths: Iterable[str], batch_size: int, top: int
) -> Iterator[dict[str, object]]:
  """The most likely classes of each picture.

  Args:
    run: the network.
    paths: of pictures.
    batch_size: how many at a time.
    top: how many classes.

  Yields:
    {'path', 'predictions': [{'class', 'name', 'probability'}, ...]}, most
    likely first, or {'path', 'error'} for what cannot be read. A class goes by
    what the data call it, and by a name for a person.
  """
  parallel.check_batch_size(run.plan, batch_size)
  predictor, size = evaluate.create_predictor(run), run.config.data.image_size
  waiting, pixels = [], np.zeros((batch_size, size, size, 3), np.uint8)

  def finish() -> Iterator[dict[str, object]]:
    if waiting:
      log_probs = predictor(pixels)
      for path, row in zip(waiting, log_probs[: len(waiting)], strict=True):
        yield {'path': path, 'predictions': _most_likely(run, row, top)}
      waiting.clear()

  for path in paths:
    try:
      pixels[len(waiting)] = read(path, size)
    except errors.UserError as error:
      yield {'path': path, 'error': str(error)}
      continue
    waiting.append(path)
    if len(waiting) == batch_size:
      yield from finish()
  yield from finish()


def _most_likely(
  run: trained.Trained, log_probs: np.ndarray, top: int
) -> list[dict[str, object]]:
  # Stable: ties go to the lower label, as in `metrics`.
  order = np.argsort(-log_probs, kind='stable')[:top]
  return [
    {
      'class': run.class_names[i],
      'name': run.readable_names[i],
      'probability': math.exp(log_probs[i]),
    }
    for i in order
  ]
