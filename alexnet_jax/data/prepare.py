r"""Prepares a data set once, as the paper did offline (section 2).

Decodes each picture, scales its shorter side to 256, keeps the central
256x256, and in the same pass sums up the training set's mean image and RGB
covariance over the pixels that will be read back. Run it as

    python -m alexnet_jax.data.prepare --source=imagenet2012 \
        --data_dir=data/ --manual_dir=tars/

and find the result in data/imagenet2012/. See `sources` for other names.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf
import tqdm
from absl import logging
from array_record.python import array_record_module

from alexnet_jax import command_line, errors
from alexnet_jax.data import records, sources

IMAGE_SIZE = 256
_JPEG_QUALITY = 95
Example = dict[str, Any]


def resize_and_crop(image: tf.Tensor, size: int) -> tf.Tensor:
  """Scales the shorter side to `size` and keeps the centre.

  Area averaging shrinks and bicubic interpolation enlarges, as cuda-convnet2's
  make-data did (CC2).

  Args:
    image: [H, W, 3] of uint8.
    size: pixels.

  Returns:
    [size, size, 3] of uint8.
  """
  shape = tf.shape(image)[:2]
  shorter = tf.reduce_min(shape)
  scaled = shape * size // shorter

  def resize(method: str) -> tf.Tensor:
    resized = tf.image.resize(image[None], scaled, method)[0]
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

  image = tf.cond(
    shorter == size,
    lambda: image,
    lambda: tf.cond(
      shorter > size, lambda: resize('area'), lambda: resize('bicubic')
    ),
  )
  top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
  return tf.ensure_shape(
    image[top : top + size, left : left + size], (size, size, 3)
  )


def _stored_form(
  example: dict[str, tf.Tensor], size: int, encoding: str
) -> dict[str, tf.Tensor]:
  """Adds what is stored, the pixels it reads back as, and their products."""
  image = tf.io.decode_image(
    example['image'], channels=3, expand_animations=False
  )
  pixels = resize_and_crop(image, size)
  stored = tf.constant(b'')
  if encoding == records.JPEG:
    stored = tf.io.encode_jpeg(
      pixels, quality=_JPEG_QUALITY, chroma_downsampling=False
    )
    # The same decoder as in training, so that the mean is of what it sees.
    pixels = tf.io.decode_and_crop_jpeg(stored, [0, 0, size, size], channels=3)
  flat = tf.reshape(tf.cast(pixels, tf.float64), (-1, 3))
  return {
    'stored': stored,
    'pixels': pixels,
    'label': example['label'],
    # Sums of integers below 2^53: exact in float64.
    'products': tf.matmul(flat, flat, transpose_a=True),
  }


class _Statistics:
  """Exact sums over the training pixels."""

  def __init__(self, size: int):
    self._count = 0
    self._pixel_sum = np.zeros((size, size, 3), np.int64)
    self._products = np.zeros((3, 3), np.float64)

  def add(self, pixels: np.ndarray, products: np.ndarray) -> None:
    """Adds one image [S, S, 3] and its sums of colour products [3, 3]."""
    self._count += 1
    self._pixel_sum += pixels
    self._products += products

  def result(self) -> dict[str, np.ndarray]:
    """The mean image and the covariance of RGB over all pixels."""
    mean_image = self._pixel_sum / self._count
    mean = mean_image.mean(axis=(0, 1))
    num_pixels = self._count * mean_image[..., 0].size
    covariance = self._products / num_pixels - np.outer(mean, mean)
    return {'mean_image': mean_image, 'rgb_covariance': covariance}


class _JpegWriter:
  def __init__(self, path: pathlib.Path, count: int, size: int):
    del count, size
    # Groups of one record: random access decompresses nothing else.
    self._writer = array_record_module.ArrayRecordWriter(
      str(path), 'group_size:1'
    )
    self.sha256 = hashlib.sha256()

  def write(self, index: int, example: Example) -> None:
    del index
    self._writer.write(example['stored'])
    self.sha256.update(example['stored'])

  def close(self) -> None:
    self._writer.close()


class _RawWriter:
  def __init__(self, path: pathlib.Path, count: int, size: int):
    self._array = np.lib.format.open_memmap(
      path, 'w+', np.uint8, (count, size, size, 3)
    )
    self.sha256 = hashlib.sha256()

  def write(self, index: int, example: Example) -> None:
    self._array[index] = example['pixels']
    self.sha256.update(example['pixels'].tobytes())

  def close(self) -> None:
    self._array.flush()


_WRITERS = {records.JPEG: _JpegWriter, records.RAW: _RawWriter}


def _write_split(
  source: sources.Source,
  split: str,
  directory: pathlib.Path,
  size: int,
  encoding: str,
) -> tuple[_Statistics, str]:
  """Writes images and labels; returns their sums and the images' SHA-256."""
  count = source.num_examples[split]
  labels = np.zeros(count, np.int32)
  statistics = _Statistics(size)
  path = records.image_path(directory, split, encoding)
  writer = _WRITERS[encoding](path, count, size)
  for index, example in enumerate(_stored_forms(source, split, size, encoding)):
    writer.write(index, example)
    labels[index] = example['label']
    statistics.add(example['pixels'], example['products'])
  writer.close()
  np.save(directory / f'{split}_labels.npy', labels)
  return statistics, writer.sha256.hexdigest()


def _stored_forms(
  source: sources.Source, split: str, size: int, encoding: str
) -> Iterator[Example]:
  """Yields a split's examples in order, behind a progress bar.

  Raises:
    UserError: naming the image that fails, or where some are missing.
  """
  dataset = source.examples(split).map(
    lambda example: _stored_form(example, size, encoding),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  iterator = dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
  indices = range(source.num_examples[split])
  label = f'prepare {source.name} {split}'
  for index in tqdm.tqdm(indices, desc=label, unit='image'):
    try:
      example = next(iterator, None)
    except tf.errors.OpError as error:
      raise errors.UserError(
        f'{_example_name(source, split, index)} cannot be read as an image; '
        'replace or remove the file and prepare again.'
      ) from error
    if example is None:
      raise errors.UserError(
        f'data.name={source.name!r} ends after {index} images of {split} '
        f'instead of {len(indices)}; let TFDS build it again.'
      )
    yield example


def _example_name(source: sources.Source, split: str, index: int) -> str:
  rest = source.examples(split).skip(index).as_numpy_iterator()
  try:
    return next(rest)['name'].decode()
  except tf.errors.OpError as error:  # the message of a read names its file
    return errors.first_line(error)


def prepare(
  source: sources.Source,
  data_dir: str,
  image_size: int = IMAGE_SIZE,
  encoding: str = '',
) -> records.PreparedSet:
  """Writes a prepared set under `data_dir` and opens it.

  The directory gets its name only when everything in it is complete.

  Args:
    source: what to prepare.
    data_dir: root of prepared sets.
    image_size: side of the stored images; sets whose images are smaller keep
      their size.
    encoding: 'jpeg' (quality 95), 'raw', or '' for jpeg unless the images are
      under 64 pixels, which are kept exactly.

  Raises:
    UserError: where an image cannot be read, or the place is taken.
  """
  size = min(image_size, source.native_size or image_size)
  encoding = encoding or (records.RAW if size < 64 else records.JPEG)
  final = pathlib.Path(data_dir).expanduser() / sources.directory_name(
    source.name
  )
  partial = final.with_name(final.name + '.partial')
  if final.exists():
    raise errors.UserError(
      f'{final} exists but holds no prepared set; remove it, or give another '
      'data.dir.'
    )
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  written = {}
  try:
    for split in ('train', 'validation'):
      written[split] = _write_split(source, split, partial, size, encoding)
  except errors.UserError:
    shutil.rmtree(partial)
    raise
  np.savez(partial / 'statistics.npz', **written['train'][0].result())
  (partial / 'class_names.txt').write_text('\n'.join(source.class_names) + '\n')
  info = {
    'source': source.name,
    'image_size': size,
    'encoding': encoding,
    'splits': source.num_examples,
    'sha256': {split: digest for split, (_, digest) in written.items()},
  }
  (partial / 'info.json').write_text(json.dumps(info, indent=2) + '\n')
  os.rename(partial, final)
  return records.open_prepared(data_dir, source.name)


def open_or_prepare(data: ml_collections.ConfigDict) -> records.PreparedSet:
  """Opens what `config.data` names, preparing it first where it is small.

  Raises:
    UserError: where it is missing and large, or of another image size.
  """
  prepared = records.open_prepared(data.dir, data.name)
  if prepared is None:
    prepared = _prepare_small(data)
  if prepared.image_size != data.image_size:
    raise errors.UserError(
      f'data.image_size={data.image_size} but {prepared.directory} holds '
      f'images of {prepared.image_size}: give that size, or another data.dir.'
    )
  for warning in prepared.warnings():
    logging.warning(warning)
  return prepared


def _prepare_small(data: ml_collections.ConfigDict) -> records.PreparedSet:
  if data.name == sources.IMAGENET:
    raise errors.UserError(
      f'data.name={data.name!r} is not prepared in {data.dir}: '
      f'{sources.imagenet_instructions(data.manual_dir or "tars/")}; then run '
      f'`{_command(data)}`.'
    )
  source = sources.open_source(data.name, data.tfds_dir, data.manual_dir)
  if not source.is_small:
    raise errors.UserError(
      f'data.name={data.name!r} is not prepared in {data.dir} and has more '
      f'images than a run prepares by itself: run `{_command(data)}` first.'
    )
  return prepare(source, data.dir, data.image_size)


def _command(data: ml_collections.ConfigDict) -> str:
  """The command that prepares what `config.data` names."""
  manual_dir = 'tars/' if data.name == sources.IMAGENET else ''
  options = {
    'source': data.name,
    'data_dir': data.dir,
    'tfds_dir': data.tfds_dir,
    'manual_dir': data.manual_dir or manual_dir,
    'image_size': '' if data.image_size == IMAGE_SIZE else data.image_size,
  }
  given = [f'--{name}={value}' for name, value in options.items() if value]
  return shlex.join(['python', '-m', 'alexnet_jax.data.prepare', *given])


def _parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m alexnet_jax.data.prepare',
    description=__doc__.splitlines()[0],
  )
  parser.add_argument('--source', required=True, help='see alexnet_jax.data')
  parser.add_argument('--data_dir', default='data/', help='root of the result')
  parser.add_argument('--tfds_dir', default='', help="TFDS's own directory")
  parser.add_argument('--manual_dir', default='', help='the ILSVRC tars')
  parser.add_argument('--image_size', type=int, help='default: 256')
  parser.add_argument('--encoding', choices=list(_WRITERS))
  return parser.parse_args()


def _check_same(prepared: records.PreparedSet, given: dict) -> None:
  """Raises UserError where a set is there, but not as asked for."""
  for name, value in given.items():
    # Sets of smaller pictures keep their size, whatever was asked for.
    smaller = name == 'image_size' and value and value > prepared.image_size
    if value not in (None, prepared.info[name]) and not smaller:
      raise errors.UserError(
        f'--{name}={value} but {prepared.directory} was prepared with '
        f'{prepared.info[name]}; give another data_dir.'
      )


def main() -> None:
  """Prepares what the command line names."""
  args = _parse_args()
  tf.config.set_visible_devices([], 'GPU')
  with command_line.one_sentence():
    prepared = records.open_prepared(args.data_dir, args.source)
    if prepared is None:
      source = sources.open_source(args.source, args.tfds_dir, args.manual_dir)
      size = args.image_size or IMAGE_SIZE
      prepared = prepare(source, args.data_dir, size, args.encoding or '')
    else:
      asked = {'image_size': args.image_size, 'encoding': args.encoding}
      _check_same(prepared, asked)
  counts = prepared.info['splits']
  print(
    f'{prepared.directory}: {counts["train"]:,} + {counts["validation"]:,} '
    f'images of {prepared.image_size} pixels, {prepared.info["encoding"]}'
  )


if __name__ == '__main__':
  main()
