"""Writes a split of a prepared set, shard by shard.

What finished shards hold is kept beside them, so that a preparation that was
killed goes on after the last whole one.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm
from array_record.python import array_record_module

from alexnet_jax import errors
from alexnet_jax.data import images, pipeline, records, sources, statistics

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """What is to be prepared, and how.

  Attributes:
    source: the pictures.
    size: side of the stored images, in pixels.
    encoding: records.JPEG or records.RAW.
    shard_size: examples of the source a shard.
    skip_errors: whether pictures that cannot be read are left out.
  """

  source: sources.Source
  size: int
  encoding: str
  shard_size: int
  skip_errors: bool

  def num_shards(self, split: str) -> int:
    """Of a split, whole or not."""
    return -(-self.source.num_examples[split] // self.shard_size)

  def identity(self) -> dict[str, Any]:
    """What must be the same for finished shards to be of use."""
    return {
      'source': self.source.name,
      'fingerprint': self.source.fingerprint,
      'examples': self.source.num_examples,
      'image_size': self.size,
      'encoding': self.encoding,
      'shard_size': self.shard_size,
    }


@dataclasses.dataclass
class Progress:
  """What the finished shards of a split hold.

  Attributes:
    shards: {'images', 'sha256'} of each.
    labels: of all their images.
    skipped: names of pictures that could not be read.
    sums: over all their pixels.
  """

  shards: list[dict]
  labels: list[int]
  skipped: list[str]
  sums: statistics.PixelSums

  @classmethod
  def load(cls, path: pathlib.Path, size: int) -> 'Progress':
    """Reads what `save` wrote; nothing is finished where it did not."""
    sums = statistics.PixelSums(size)
    if not path.exists():
      return cls([], [], [], sums)
    with np.load(path) as arrays:
      sums.count = int(arrays['count'])
      sums.pixels, sums.products = arrays['pixels'], arrays['products']
      lists = json.loads(str(arrays['lists']))
      return cls(labels=arrays['labels'].tolist(), sums=sums, **lists)

  def save(self, path: pathlib.Path) -> None:
    """Writes a new file and renames it: a kill leaves the old one."""
    lists = {'shards': self.shards, 'skipped': self.skipped}
    new = path.with_suffix('.new.npz')
    np.savez(
      new,
      labels=np.array(self.labels, np.int32),
      lists=json.dumps(lists),
      **vars(self.sums),
    )
    os.replace(new, path)


def write_split(job: Job, split: str, directory: pathlib.Path) -> Progress:
  """Writes what is missing of a split's shards.

  Args:
    job: what is to be prepared.
    split: 'train' or 'validation'.
    directory: of the shards, and of the split's progress.

  Returns:
    What all shards hold.

  Raises:
    UserError: where a picture cannot be read and may not be skipped, none can
      be read, or the source ends early.
  """
  saved, count = directory / f'{split}_progress.npz', job.num_shards(split)
  progress = Progress.load(saved, job.size)
  if progress.skipped and not job.skip_errors:
    _stop(progress.skipped[0])
  start = len(progress.shards) * job.shard_size
  on_error = progress.skipped.append if job.skip_errors else _stop
  forms = _stored_forms(job, split, start, on_error)
  # Closed, so that no bar is drawn after an error's sentence.
  with contextlib.closing(forms) as examples:
    for shard in range(len(progress.shards), count):
      path = records.shard_path(directory, split, shard, count, job.encoding)
      slice_ = itertools.islice(examples, job.shard_size)
      _write_shard(path, slice_, job, progress)
      progress.save(saved)
  if not progress.labels:
    raise errors.UserError(
      f'{job.source.name}: no picture of {split} can be read (the first is '
      f'{progress.skipped[0]}); check where the files come from.'
    )
  return progress


def _stored_form(example: Example, job: Job) -> Example:
  """What is stored, and the pixels that it reads back as."""
  pixels = images.resize_and_crop(images.decode(example['image']), job.size)
  stored = tf.constant(b'')
  if job.encoding == records.JPEG:
    stored = images.encode(pixels)
    # The same decoder as in training, so that the mean is of what it sees.
    pixels = images.decode_crop(stored, [0, 0, job.size, job.size])
  return {
    'stored': stored,
    'pixels': pixels,
    'label': example['label'],
    'products': images.color_products(pixels),
  }


def _stored_forms(
  job: Job, split: str, start: int, on_error: Callable[[str], None]
) -> Iterator[Example | None]:
  """Yields a split's examples in order, behind a progress bar.

  Args:
    job: what is to be prepared.
    split: 'train' or 'validation'.
    start: number of the first example.
    on_error: is told the name of a picture that cannot be read; where it
      returns, None is yielded in the picture's place.

  Raises:
    UserError: where the source ends early.
  """
  source, count = job.source, job.source.num_examples[split]
  # Enough to hide what this thread does; AUTOTUNE's buffers would grow.
  ahead = 2 * pipeline.num_cores()
  dataset = source.examples(split, start).map(
    lambda example: _stored_form(example, job), ahead, deterministic=True
  )
  dataset = pipeline.with_threads(dataset.prefetch(ahead), ahead)
  iterator = dataset.as_numpy_iterator()
  bar = tqdm.tqdm(total=count, initial=start, unit='image')
  bar.set_description(f'prepare {source.name} {split}')
  with bar:
    for index in range(start, count):
      try:
        yield next(iterator)
      except tf.errors.InvalidArgumentError:  # a decoder's
        example = next(source.examples(split, index).as_numpy_iterator())
        on_error(example['name'].decode())
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


def _stop(name: str) -> None:
  raise errors.UserError(
    f'{name} cannot be read as an image; leave such files out with '
    '--on_error=skip, or replace the file and prepare all again.'
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
  # Random access reads nothing else, and JPEG does not compress again.
  options = 'group_size:1,uncompressed'
  return array_record_module.ArrayRecordWriter(str(path), options)
