r"""Says what is on pictures.

    python -m experiments.predict --workdir=runs/alexnet cat.jpg holiday/
    find . -name '*.png' | python -m experiments.predict --workdir=runs/a -

Arguments are files, folders (searched for pictures, to any depth) and `-`, for
a list of files on standard input, one a line. Prints the most likely classes of
each, or with --json one JSON object a line. A file that is no picture is named
on standard error and left out, and the exit code is then 1.
"""

import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

# Before TensorFlow starts: it only reads images here, and need not say so.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from alexnet_jax import (
  command_line,
  compilation_cache,
  errors,
  evaluate,
  parallel,
  trained,
)
from alexnet_jax.data import images, sources
from experiments import network_flags

_WORKDIR = flags.DEFINE_string('workdir', None, 'A run: DIR or DIR@STEP.')
_TOP = flags.DEFINE_integer('top', 5, 'How many classes.', lower_bound=1)
_JSON = flags.DEFINE_bool('json', False, 'JSON lines instead of text.')


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
  """A picture as the network's data was prepared: [size, size, 3] of uint8.

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
    {'path', 'predictions': [{'class', 'probability'}, ...]}, most likely
    first, or {'path', 'error'} for what cannot be read.
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
    {'class': run.class_names[i], 'probability': math.exp(log_probs[i])}
    for i in order
  ]


def _text(result: dict[str, object]) -> str:
  lines = [
    f'{100 * p["probability"]:6.2f}%  {p["class"]}'
    for p in result['predictions']
  ]
  return '\n'.join([result['path'], *lines])


def _check_flags(arguments: list[str]) -> None:
  if not _WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  if not arguments:
    raise errors.UserError('no pictures; give files, folders or -.')


def main(argv: list[str]) -> None:
  """Does what the flags say."""
  tf.config.set_visible_devices([], 'GPU')
  logging.set_verbosity(logging.WARNING)
  failed = 0
  with command_line.one_sentence():
    _check_flags(argv[1:])
    compilation_cache.enable()
    run = trained.load(
      _WORKDIR.value, {'eval.views': int(network_flags.VIEWS.value)}
    )
    paths = find(argv[1:])
    for result in predict(
      run, paths, network_flags.BATCH_SIZE.value, _TOP.value
    ):
      if 'error' in result:
        failed += 1
        print(f'error: {result["error"]}.', file=sys.stderr)
      else:
        print(json.dumps(result) if _JSON.value else _text(result), flush=True)
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  app.run(main)
