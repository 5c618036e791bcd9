"""Writes what a layer makes of pictures, or of all images of a split.

    python -m alexnet_jax.tools.features --layer=fc7 --output=f.npz pictures/
    python -m alexnet_jax.tools.features --workdir=runs/alexnet --layer=fc7

Row i is float32 [D], of the centre patch of image i. D counts all towers, one
after the other; maps are flattened.

Pictures are files, folders, and `-` for a list of files on standard input. The
.npz file has three arrays: `paths`, `features` [N, D], and `labels`, the name
of the folder within `pictures/`, `pictures/train/` or `pictures/validation/`
that a picture is in, or '' if it is in none.

A split's file is a .npy with the features alone.
"""

import hashlib
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import ml_collections
import numpy as np
import tqdm
from absl import flags

from alexnet_jax import atomic, command_line, errors, paths, trained
from alexnet_jax.data import pipeline, records, sources
from alexnet_jax.models import alexnet
from alexnet_jax.tools import flags as tool_flags
from alexnet_jax.tools import predict

FLAGS = flags.FLAGS


def last_hidden(model: ml_collections.ConfigDict) -> str:
  """Returns the name of the layer before the head, or '' if there is none.

  Raises:
    UserError: If the network is not an AlexNet, so that --layer must say it.
  """
  return ['', *alexnet.layer_table(model)][-2]


def batches(
  extract: trained.ImageFunction,
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  split: str,
  batch_size: int,
) -> Iterator[Any]:
  """Yields the features of a whole split in order, and shows a bar."""
  stream = pipeline.eval_batches(
    prepared, split, batch_size, workers=run.config.data.workers
  )
  total = -(-prepared.num_examples(split) // batch_size)
  # No bar where the output is no terminal.
  bar = tqdm.tqdm(stream, split, total, leave=False, disable=None)
  for batch in bar:
    yield extract(batch['image'][batch['mask'] > 0])


def rank(
  stream: Iterable[dict[str, np.ndarray]], count: int
) -> dict[str, np.ndarray]:
  """Keeps the highest scores of what streams by.

  Args:
    stream: Arrays [R, B] by name, 'score' among them, of batches of B images.
    count: Number of images to keep in each row, or all if there are fewer.

  Returns:
    Arrays [R, count], highest score first, with 'record', the number of the
    image in the stream. Of equal scores, the lower record comes first.
  """
  best, start = {}, 0
  for new in stream:
    numbers = np.arange(start, start + new['score'].shape[1])
    start += len(numbers)
    new['record'] = np.broadcast_to(numbers, new['score'].shape)
    both = {
      name: np.concatenate([best.get(name, x[:, :0]), x], axis=1)
      for name, x in new.items()
    }
    order = np.argsort(-both['score'], axis=1, kind='stable')[:, :count]
    best = {name: np.take_along_axis(x, order, 1) for name, x in both.items()}
  return best


def stored(
  path: str,
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  layer: str,
  split: str,
  batch_size: int,
) -> np.ndarray:
  """Returns the features of a split, [N, D], mapped from a file into memory.

  The file is written first if it does not exist. FILE.sha256 beside it tells
  which network, layer and data the features belong to.

  Raises:
    UserError: If the file belongs to something else.
  """
  about = [run.digest, layer, split, prepared.info]
  text = json.dumps(about, sort_keys=True).encode()
  digest, file = hashlib.sha256(text).hexdigest(), paths.local('path', path)
  digest_file = pathlib.Path(f'{file}.sha256')
  if not file.exists():
    file.parent.mkdir(parents=True, exist_ok=True)
    extract = trained.create_extractor(run, layer, batch_size)
    stream = batches(extract, run, prepared, split, batch_size)
    with atomic.replacing(file) as new:
      _write(new, stream, prepared.num_examples(split))
      atomic.write_text(digest_file, digest)
  elif not digest_file.exists() or digest_file.read_text() != digest:
    raise errors.UserError(
      f'{path} holds features of another network, layer or data set; give '
      'another name, or remove it.'
    )
  remedy = 'remove it to have it written again'
  with errors.damage_as_user_error(file, remedy):
    return np.load(file, mmap_mode='r')


def _write(file: IO[bytes], stream: Iterable[np.ndarray], count: int) -> None:
  """Writes a .npy of float32 [count, D], batch by batch."""
  for made in stream:
    rows = made.reshape(len(made), -1).astype('<f4')
    if not file.tell():
      shape = (count, rows.shape[1])
      header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
      np.lib.format.write_array_header_1_0(file, header)
    file.write(rows.tobytes())


def of_pictures(
  run: trained.TrainedRun,
  arguments: list[str],
  layer: str,
  batch_size: int,
  failed: list[str],
) -> dict[str, np.ndarray]:
  """Returns 'paths' [N], 'features' [N, D] and 'labels' [N] of pictures.

  Args:
    run: Run on the devices.
    arguments: Files, folders, and '-', see `predict.find`.
    layer: Name of the layer.
    batch_size: Pictures at a time.
    failed: List that gets the names of what is no picture.

  Raises:
    UserError: If there is no picture, or the network has no such layer.
  """
  run.check_layer(layer)
  size = run.config.data.image_size
  pictures = predict.read_all(arguments, size, failed)
  names, rows = [], []
  while batch := list(itertools.islice(pictures, batch_size)):
    made = run.features([x.pixels for x in batch], layer, batch_size)
    rows.append(made.reshape(len(made), -1))
    names += [picture.name for picture in batch]
  if not rows:
    raise errors.UserError(
      f'{" ".join(arguments)} has no picture that can be read; give others.'
    )
  return {
    'paths': np.array(names),
    'features': np.concatenate(rows),
    'labels': np.array([_label(name, arguments) for name in names]),
  }


def _label(name: str, arguments: list[str]) -> str:
  """Returns the class folder within an argument that a picture is in, or ''."""
  path = pathlib.Path(name)
  for argument in arguments:
    if path.is_relative_to(argument):
      folders = path.relative_to(argument).parts[:-1]
      if len(folders) > 1 and sources.SPLIT_FOLDER.fullmatch(folders[0]):
        return folders[1]
      return ''.join(folders[:1])
  return ''


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir('pretrained:imagenette')
  tool_flags.define_data()
  tool_flags.define_output(None, 'The file to write, features.npz or .npy.')
  flags.DEFINE_string('layer', '', 'Layer; by default the last hidden one.')
  flags.DEFINE_enum('split', 'train', ['train', 'validation'], 'Images.')


def _check_flags(arguments: list[str]) -> None:
  if not arguments and not FLAGS['workdir'].present:
    raise errors.UserError(
      'there are no pictures; give some, or --workdir for the images of a '
      "run's data."
    )
  if arguments and FLAGS['split'].present:
    raise errors.UserError(
      f"--split={FLAGS.split} chooses images of the run's data; leave it out "
      'where pictures are given.'
    )


def main(arguments: list[str]) -> None:
  """Writes the features and prints the name of the file."""
  _check_flags(arguments)
  run, failed = tool_flags.load_run(), []
  layer = FLAGS.layer or last_hidden(run.config.model)
  output = FLAGS.output or f'features.np{"z" if arguments else "y"}'
  if arguments:
    made = of_pictures(run, arguments, layer, FLAGS.batch_size, failed)
    file = paths.local('--output', output)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(file) as new:
      np.savez(new, **made)
  else:
    prepared = run.open_data()
    stored(output, run, prepared, layer, FLAGS.split, FLAGS.batch_size)
  print(output)
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  command_line.run(main, define_flags, takes_arguments=True)
