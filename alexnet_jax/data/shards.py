"""Writing one split of a prepared set, shard by shard.

What the finished shards hold is saved beside them. So a preparation that was
killed continues after the last finished shard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tqdm
from array_record.python import array_record_module

from alexnet_jax import atomic, errors
from alexnet_jax.data import images, pipeline, records, sources
from alexnet_jax.data.lazy import tf

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """Description of a preparation.

  Attributes:
    source: Source of the pictures.
    size: Side of the stored images, in pixels.
    encoding: records.JPEG or records.RAW.
    shard_size: Number of the source's examples per shard.
    skip_errors: Whether pictures that cannot be read are left out.
  """

  source: sources.Source
  size: int
  encoding: str
  shard_size: int
  skip_errors: bool

  def num_shards(self, split: str) -> int:
    """Returns the number of shards of a split."""
    return -(-self.source.num_examples[split] // self.shard_size)

  def identity(self) -> dict[str, Any]:
    """Returns all fields on which the content of a shard depends."""
    return {
      'source': self.source.name,
      'fingerprint': self.source.fingerprint,
      'examples': self.source.num_examples,
      'image_size': self.size,
      'encoding': self.encoding,
      'shard_size': self.shard_size,
    }

  def skipping_command(self, data_dir: pathlib.Path) -> str:
    """Returns the command that leaves out pictures that cannot be read."""
    options = {
      'source': self.source.name,
      'data_dir': data_dir,
      'image_size': self.size,
      'encoding': self.encoding,
      'on_error': 'skip',
    }
    given = [f'--{name}={value}' for name, value in options.items()]
    return shlex.join(['python', '-m', 'alexnet_jax.data.prepare', *given])


class PixelSums:
  """Sums over the pixels of images, in integers: exact in any order.

  Attributes:
    count: Number of images added.
    pixels: [S, S, 3] of int64, the sum of the images.
    products: [3, 3] of int64, sums of the products of every two colours.
  """

  def __init__(self, size: int):
    self.count = 0
    self.pixels = np.zeros((size, size, 3), np.int64)
    self.products = np.zeros((3, 3), np.int64)

  def add(self, image: np.ndarray, products: np.ndarray) -> None:
    """Adds one image.

    Args:
      image: [S, S, 3] of uint8.
      products: [3, 3], the image's `images.color_products`.
    """
    self.count += 1
    self.pixels += image
    self.products += products

  def statistics(self) -> dict[str, np.ndarray]:
    """Returns the mean image and the covariance of RGB over all pixels."""
    num_pixels = self.count * self.pixels[..., 0].size
    mean = self.pixels.sum(axis=(0, 1)) / num_pixels
    return {
      'mean_image': self.pixels / self.count,
      'rgb_covariance': self.products / num_pixels - np.outer(mean, mean),
    }


@dataclasses.dataclass
class Progress:
  """Content of the finished shards of a split.

  Attributes:
    shards: {'images', 'sha256'} of each shard.
    labels: Labels of all images.
    skipped: Names of the pictures that could not be read, each with the
      reason in brackets.
    sums: Sums over all pixels.
  """

  shards: list[dict]
  labels: list[int]
  skipped: list[str]
  sums: PixelSums

  @classmethod
  def load(cls, path: pathlib.Path, size: int) -> Progress:
    """Reads what `save` wrote, or returns the state before the first shard.

    Args:
      path: Path of the file.
      size: Side of the stored images, in pixels.
    """
    sums = PixelSums(size)
    if not path.exists():
      return cls([], [], [], sums)
    remedy = 'remove it, and its split is prepared anew'
    with errors.damage_as_user_error(path, remedy), np.load(path) as arrays:
      sums.count = int(arrays['count'])
      sums.pixels, sums.products = arrays['pixels'], arrays['products']
      lists = json.loads(str(arrays['lists']))
      return cls(labels=arrays['labels'].tolist(), sums=sums, **lists)

  def save(self, path: pathlib.Path) -> None:
    """Writes a new file and renames it, so that a kill leaves the old one."""
    lists = {'shards': self.shards, 'skipped': self.skipped}
    with atomic.replacing(path) as file:
      np.savez(
        file,
        labels=np.array(self.labels, np.int32),
        lists=json.dumps(lists),
        **vars(self.sums),
      )


def write_split(job: Job, split: str, directory: pathlib.Path) -> Progress:
  """Writes the shards of a split that are not finished yet.

  Args:
    job: Description of the preparation.
    split: 'train' or 'validation'.
    directory: Directory of the shards and of the split's progress.

  Returns:
    Progress with all shards finished.

  Raises:
    UserError: If a picture cannot be read and may not be skipped, if no picture
      can be read, or if the source ends early.
  """
  saved, count = directory / f'{split}_progress.npz', job.num_shards(split)
  progress = Progress.load(saved, job.size)
  command = job.skipping_command(directory.parent)
  if progress.skipped and not job.skip_errors:
    raise _unreadable(progress.skipped[0], command)
  start = len(progress.shards) * job.shard_size

  def on_error(example: Example) -> None:
    named = f'{example["name"].decode()} ({_fault(example)})'
    if not job.skip_errors:
      raise _unreadable(named, command)
    progress.skipped.append(named)

  examples = _stored_examples(job, split, start, on_error)
  # Closed before an error's sentence is printed, so that no bar follows it.
  with contextlib.closing(examples):
    for shard in range(len(progress.shards), count):
      path = records.shard_path(directory, split, shard, count, job.encoding)
      slice_ = itertools.islice(examples, job.shard_size)
      _write_shard(path, slice_, job, progress)
      progress.save(saved)
  if not progress.labels:
    raise errors.UserError(
      f'{job.source.name}: no picture of {split} can be read, such as '
      f'{progress.skipped[0]}; check where the files come from.'
    )
  return progress


def _stored_example(example: Example, job: Job) -> Example:
  """Returns what is stored of an example, and the pixels it decodes to."""
  pixels = images.resize_and_crop(images.decode(example['image']), job.size)
  stored = tf.constant(b'')
  if job.encoding == records.JPEG:
    stored = images.encode(pixels)
    # Decoded as in training, so that the mean is that of training's pixels.
    pixels = images.decode_crop(stored, [0, 0, job.size, job.size])
  return {
    'stored': stored,
    'pixels': pixels,
    'label': example['label'],
    'products': images.color_products(pixels),
  }


def _stored_examples(
  job: Job, split: str, start: int, on_error: Callable[[Example], None]
) -> Iterator[Example | None]:
  """Yields the stored examples of a split in order, with a progress bar.

  Args:
    job: Description of the preparation.
    split: 'train' or 'validation'.
    start: Number of the first example.
    on_error: Function that takes an example whose picture cannot be read. If it
      returns, None is yielded in the example's place.

  Raises:
    UserError: If the source ends early.
  """
  source, count = job.source, job.source.num_examples[split]
  # Enough to hide what this thread does; AUTOTUNE's buffers would grow.
  ahead = 2 * pipeline.num_cores()
  dataset = source.examples(split, start).map(
    lambda example: _stored_example(example, job), ahead, deterministic=True
  )
  dataset = pipeline.with_threads(dataset.prefetch(ahead), ahead)
  iterator = dataset.as_numpy_iterator()
  bar = tqdm.tqdm(total=count, initial=start, unit='image')
  bar.set_description(f'prepare {source.name} {split}')
  with bar:
    for index in range(start, count):
      try:
        yield next(iterator)
      except tf.errors.InvalidArgumentError:  # from a decoder
        on_error(next(source.examples(split, index).as_numpy_iterator()))
        yield None
      except tf.errors.OpError as error:
        raise errors.UserError(
          f'image {index} of {split} of {source.name} cannot be read '
          f'({errors.first_line(error)}); repair the source and prepare again.'
        ) from error
      except StopIteration:
        raise errors.UserError(
          f'data.name={source.name!r} ends after {index} images of {split} '
          f'instead of {count}; let TFDS build it again.'
        ) from None
      bar.update()


def _fault(example: Example) -> str:
  """Returns why a picture cannot be read."""
  if not example['image']:  # of a folder: its name is a path
    try:
      open(example['name'], 'rb').close()
    except OSError as error:
      return error.strerror
  return images.fault(example['image'])


def _unreadable(named: str, command: str) -> errors.UserError:
  return errors.UserError(
    f'{named} cannot be read as an image; replace it, or leave such files out '
    f'with `{command}`.'
  )


def _write_shard(
  path: pathlib.Path,
  examples: Iterable[Example | None],
  job: Job,
  progress: Progress,
) -> None:
  """Writes one shard and adds it to `progress`."""
  known = len(progress.labels)
  with (
    errors.no_room_as_os_error(path),
    contextlib.closing(_open_writer(path, job.encoding)) as writer,
  ):
    for example in filter(None, examples):
      stored = example['stored'] or example['pixels'].tobytes()
      writer.write(stored)
      progress.labels.append(int(example['label']))
      progress.sums.add(example['pixels'], example['products'])
  with open(path, 'rb') as file:
    os.fsync(file)
  count = len(progress.labels) - known
  progress.shards.append({'images': count, 'sha256': records.sha256(path)})


def _open_writer(path: pathlib.Path, encoding: str):
  if encoding == records.RAW:
    return open(path, 'wb')
  # One record per group, because access is random; JPEG is compressed already.
  options = 'group_size:1,uncompressed'
  return array_record_module.ArrayRecordWriter(str(path), options)
