"""Batches as a pure function of (seed, step).

Epoch e is a permutation keyed by (seed, e). Example i of the run is position
i mod N of epoch i div N, and step k holds examples kB to kB + B - 1. Crops and
flips are drawn in the same way. There is no iterator state: any step is
reached at once, and neither workers nor processes change a batch. Step k counts
from 0 here; the training log calls the same step k + 1.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np

from alexnet_jax import errors
from alexnet_jax.data import augment, images, records
from alexnet_jax.data.lazy import tf

Batch = dict[str, np.ndarray]
# Draws for the examples at given places in the run.
Draw = Callable[[np.ndarray], augment.Draws]
# Number of a piece of a batch -> its draws and places.
DrawPiece = Callable[[np.ndarray], tuple[augment.Draws, np.ndarray]]

_PREFETCH = 2  # batches
# A worker loads at most so many images at a time, so that memory does not grow
# with batch size times workers.
_MAX_PIECE = 128
_ALL = slice(None)


def train_batches(
  prepared: records.PreparedSet,
  data: ml_collections.ConfigDict,
  *,
  seed: int,
  batch_size: int,
  start_step: int,
  end_step: int,
  share: slice = _ALL,
) -> Iterator[Batch]:
  """Yields augmented batches of the steps from `start_step` up to `end_step`.

  Args:
    prepared: Prepared set to read.
    data: Config of the data, `config.data`.
    seed: Seed that keys order, crops and flips.
    batch_size: Size of the global batch, B.
    start_step: Number of the first batch.
    end_step: Number of the batch after the last.
    share: Slice of each batch, b examples, that this process needs.

  Yields:
    {'image': [b, c, c, 3] of uint8, 'label': [b] of int32, 'index': [b] of
    uint32, each example's place in the run}.

  Raises:
    UserError: If a stored image cannot be read.
  """
  draw = functools.partial(draw_examples, prepared, data, seed)
  for image, label, place in _batches(
    prepared,
    'train',
    draw,
    batch_size=batch_size,
    share=share,
    steps=range(start_step, end_step),
    size=data.crop_size,
    workers=data.workers,
    pad=data.pad,
  ):
    yield {'image': image, 'label': label, 'index': place.astype(np.uint32)}


def num_train_examples(
  prepared: records.PreparedSet, data: ml_collections.ConfigDict
) -> int:
  """Returns the number of images in an epoch.

  Raises:
    UserError: If data.train_examples asks for more than there are.
  """
  count = prepared.num_examples('train')
  if data.train_examples > count:
    raise errors.UserError(
      f'data.train_examples={data.train_examples} but {prepared.directory} has '
      f'{count}; give at most so many, or 0 for all.'
    )
  return data.train_examples or count


@functools.lru_cache(maxsize=1)
def _order(count: int) -> np.ndarray:
  """Returns the order in which `data.train_examples` chooses records."""
  return np.random.default_rng(zlib.crc32(b'train_examples')).permutation(count)


def draw_examples(
  prepared: records.PreparedSet,
  data: ml_collections.ConfigDict,
  seed: int,
  places: np.ndarray,
) -> augment.Draws:
  """Draws records, crops and flips of the examples at `places` [b] in a run."""
  margin = prepared.image_size + 2 * data.pad - data.crop_size
  count = num_train_examples(prepared, data)
  draws = augment.draw(seed, places, count, margin)
  if data.train_examples:
    order = _order(prepared.num_examples('train'))
    draws = draws._replace(records=order[draws.records])
  if not data.random_crop:
    centre = np.full_like(draws.corners, margin // 2)
    draws = draws._replace(corners=centre)
  return draws if data.flip else draws._replace(flips=draws.flips & False)


def eval_batches(
  prepared: records.PreparedSet,
  split_name: str,
  batch_size: int,
  *,
  share: slice = _ALL,
  workers: int = 0,
) -> Iterator[Batch]:
  """Yields whole images of a split in order, with the last batch padded.

  Args:
    prepared: Prepared set to read.
    split_name: 'train' or 'validation'.
    batch_size: Size of the global batch, B.
    share: Slice of each batch, b examples, that this process needs.
    workers: Number of threads that read; 0 for one per core.

  Yields:
    {'image': [b, S, S, 3] of uint8, 'label': [b] of int32, 'mask': [b] of
    float32, 0 for padding}. The masks of all shares add up to the split's size.

  Raises:
    UserError: If a stored image cannot be read.
  """
  count = len(prepared.open_split(split_name))

  def draw(places: np.ndarray) -> augment.Draws:
    return augment.no_draws(np.minimum(places, count - 1))

  for image, label, place in _batches(
    prepared,
    split_name,
    draw,
    batch_size=batch_size,
    share=share,
    steps=range(-(-count // batch_size)),
    size=prepared.image_size,
    workers=workers,
  ):
    yield {'image': image, 'label': label, 'mask': np.float32(place < count)}


def read_images(
  prepared: records.PreparedSet, split_name: str, rows: np.ndarray
) -> np.ndarray:
  """Returns whole images of a few records, [n, S, S, 3] of uint8.

  Raises:
    UserError: If a stored image cannot be read.
  """
  split = prepared.open_split(split_name)
  if isinstance(split, records.RawSplit):
    return np.stack([split[row] for row in rows])
  try:
    return np.stack([images.decode(jpeg) for jpeg in split.read(rows)])
  except tf.errors.OpError as error:
    raise _damaged(prepared, split_name, rows) from error


def _damaged(
  prepared: records.PreparedSet, split_name: str, rows: np.ndarray
) -> errors.UserError:
  """Returns the error that names the first damaged one of a few records."""
  split = prepared.open_split(split_name)
  if isinstance(split, records.JpegSplit):
    for row in rows:
      if not _is_whole(split, row, prepared.image_size):
        return prepared.damaged(f'image {row} of {split_name}')
  return prepared.damaged()


def _is_whole(split: records.JpegSplit, row: np.integer, size: int) -> bool:
  """Returns whether a record can be decoded to an image of this size."""
  try:
    (jpeg,) = split.read(row[None])
    return len(images.decode(jpeg)) == size
  except Exception:  # of TensorFlow or of ArrayRecord
    return False


def with_threads(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
  """Gives a dataset its own threads, for `count` calls at a time."""
  options = tf.data.Options()
  # Of two threads, one often waits for something: a core would be idle.
  options.threading.private_threadpool_size = count + 2
  return dataset.with_options(options)


def num_cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on every system
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def _batches(
  prepared: records.PreparedSet,
  split_name: str,
  draw: Draw,
  *,
  batch_size: int,
  share: slice,
  steps: range,
  size: int,
  workers: int,
  pad: int = 0,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields images [b, size, size, 3], labels [b] and places [b]."""
  split, workers = prepared.open_split(split_name), workers or num_cores()
  own = np.arange(batch_size)[share]
  pieces = np.split(own, _num_pieces(len(own)))

  def draw_piece(number: np.ndarray) -> tuple[augment.Draws, np.ndarray]:
    step, piece = divmod(int(number), len(pieces))
    places = step * batch_size + pieces[piece]
    return draw(places), places

  if isinstance(split, records.RawSplit):
    load = _load_raw(split, draw_piece, size, _create_pad(prepared, pad))
  elif pad:
    raise errors.UserError(
      f'data.pad={pad} but {prepared.directory} holds JPEGs; prepare the set '
      'again with --encoding=raw, or give data.pad=0.'
    )
  else:
    load = _load_jpeg(split, draw_piece, size, prepared.image_size)
  # AutoGraph has nothing to convert here, but takes a second to see it.
  load = tf.autograph.experimental.do_not_convert(load)
  dataset = tf.data.Dataset.range(
    steps.start * len(pieces), steps.stop * len(pieces)
  ).map(load, workers, deterministic=True)
  if len(pieces) > 1:
    dataset = dataset.batch(len(pieces))
  dataset = with_threads(dataset.prefetch(_PREFETCH), workers)
  step = steps.start
  try:
    for batch in dataset.as_numpy_iterator():
      if len(pieces) > 1:  # [pieces, n, ...] -> [pieces * n, ...]
        batch = tuple(x.reshape(-1, *x.shape[2:]) for x in batch)
      yield batch
      step += 1
  except tf.errors.OpError as error:
    rows = draw(step * batch_size + own).records
    raise _damaged(prepared, split_name, rows) from error


def _create_pad(
  prepared: records.PreparedSet, pad: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function that puts `pad` pixels of mean colour around images."""
  if not pad:
    return lambda image: image
  mean = prepared.statistics()['mean_image'].mean(axis=(0, 1))
  side = prepared.image_size + 2 * pad
  blank = np.broadcast_to(np.uint8(mean.round()), (side, side, 3))

  def add(image: np.ndarray) -> np.ndarray:
    padded = blank.copy()
    padded[pad:-pad, pad:-pad] = image
    return padded

  return add


def _num_pieces(count: int) -> int:
  """Returns into how few equal pieces `count` examples can be divided."""
  return next(
    pieces
    for pieces in range(1, count + 1)
    if count % pieces == 0 and count // pieces <= _MAX_PIECE
  )


def _load_jpeg(
  split: records.JpegSplit, draw_piece: DrawPiece, size: int, image_size: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
  """Returns a function that loads a piece: read here, decoded in C++."""

  def read(number: np.ndarray) -> tuple[np.ndarray, ...]:
    draws, places = draw_piece(number)
    jpegs = np.array(split.read(draws.records), dtype=object)
    windows = np.insert(draws.corners, [2, 2], size, axis=1)
    return jpegs, windows, draws.flips, split.labels[draws.records], places

  def decode(example: tuple[tf.Tensor, ...]) -> tf.Tensor:
    jpeg, window, flip = example
    # A larger picture would have such a window too, of something else.
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]
    with tf.control_dependencies([tf.assert_equal(shape, image_size)]):
      image = images.decode_crop(jpeg, window)
    # Ten times as fast as reversing by a slice.
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)

  def load(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
    *examples, label, place = tf.numpy_function(
      read, [number], [tf.string, tf.int32, tf.bool, tf.int32, tf.int64]
    )
    spec = tf.TensorSpec((size, size, 3), tf.uint8)
    image = tf.map_fn(decode, tuple(examples), fn_output_signature=spec)
    return image, label, place

  return load


def _load_raw(
  split: records.RawSplit,
  draw_piece: DrawPiece,
  size: int,
  add_pad: Callable[[np.ndarray], np.ndarray],
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
  """Returns a function that loads a piece: copied from the mapped file."""

  def read(number: np.ndarray) -> tuple[np.ndarray, ...]:
    draws, places = draw_piece(number)
    crops = np.empty((len(places), size, size, 3), np.uint8)
    for crop, record, (top, left), flip in zip(crops, *draws, strict=True):
      window = add_pad(split[record])[top : top + size, left : left + size]
      if flip:
        for colour in range(3):  # several times as fast as all three at once
          crop[..., colour] = window[:, ::-1, colour]
      else:
        crop[:] = window
    return crops, split.labels[draws.records], places

  types = [tf.uint8, tf.int32, tf.int64]
  return lambda number: tuple(tf.numpy_function(read, [number], types))
