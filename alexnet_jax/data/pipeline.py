"""Batches as a pure function of (seed, step).

Epoch e is a permutation keyed by (seed, e); example i of the run is position
i mod N of epoch i div N, and step k holds examples kB to kB + B - 1. Crops and
flips are drawn in the same way. Nothing has state: any step is reached at
once, and neither workers nor processes change a batch.
"""

import functools
import os
import zlib
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np
import tensorflow as tf

from alexnet_jax import errors
from alexnet_jax.data import augment, images, records

Batch = dict[str, np.ndarray]
_PREFETCH = 2  # batches
# A worker fills this many images at a time, or the largest divisor of the
# batch below: memory does not grow with batch size times workers.
_MOST_AT_A_TIME = 128
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
  """Augmented batches of the steps from `start_step` up to `end_step`.

  Args:
    prepared: the set to read.
    data: `config.data`.
    seed: keys order, crops and flips.
    batch_size: B, of the global batch.
    start_step: number of the first batch.
    end_step: one past the last.
    share: the b examples of each batch that this process needs.

  Yields:
    {'image': [b, c, c, 3] of uint8, 'label': [b] of int32, 'index': [b] of
    uint32, each example's place in the run}.

  Raises:
    UserError: where a stored image cannot be read.
  """
  split = prepared.open_split('train')
  draw = functools.partial(draw_examples, prepared, data, seed)
  pieces = _Pieces(draw, batch_size, share)
  steps = range(start_step, end_step)
  for image, label, place in _batches(
    prepared, split, pieces, steps, data.crop_size, data.workers
  ):
    yield {'image': image, 'label': label, 'index': place.astype(np.uint32)}


def num_train_examples(
  prepared: records.PreparedSet, data: ml_collections.ConfigDict
) -> int:
  """How many images an epoch has.

  Raises:
    UserError: where data.train_examples asks for more than there are.
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
  """Records in the order in which `train_examples` takes them."""
  return np.random.default_rng(zlib.crc32(b'train_examples')).permutation(count)


def draw_examples(
  prepared: records.PreparedSet,
  data: ml_collections.ConfigDict,
  seed: int,
  places: np.ndarray,
) -> augment.Draws:
  """Records, crops and flips of the run's examples at `places` [b]."""
  margin = prepared.image_size - data.crop_size
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
  """Whole images of a split in order, the last batch padded.

  Args:
    prepared: the set to read.
    split_name: 'train' or 'validation'.
    batch_size: B, of the global batch.
    share: the b examples of each batch that this process needs.
    workers: threads that read; 0 for one a core.

  Yields:
    {'image': [b, S, S, 3] of uint8, 'label': [b] of int32, 'mask': [b] of
    float32, 0 for padding}; the masks of all shares add up to the split's
    size.

  Raises:
    UserError: where a stored image cannot be read.
  """
  split = prepared.open_split(split_name)
  count, size = len(split.labels), prepared.image_size

  def draw(places: np.ndarray) -> augment.Draws:
    return augment.no_draws(np.minimum(places, count - 1))

  pieces = _Pieces(draw, batch_size, share)
  steps = range(-(-count // batch_size))
  for image, label, place in _batches(
    prepared, split, pieces, steps, size, workers
  ):
    yield {'image': image, 'label': label, 'mask': np.float32(place < count)}


def read_images(
  prepared: records.PreparedSet, split_name: str, rows: np.ndarray
) -> np.ndarray:
  """Whole images of a few records: [n, S, S, 3] of uint8.

  Raises:
    UserError: where a stored image cannot be read.
  """
  split = prepared.open_split(split_name)
  if isinstance(split, records.RawSplit):
    return np.stack([split[row] for row in rows])
  try:
    return np.stack([images.decode(jpeg) for jpeg in split.read(rows)])
  except tf.errors.OpError as error:
    raise prepared.damaged() from error


def with_threads(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
  """Gives a dataset threads of its own for `count` calls at a time."""
  options = tf.data.Options()
  # Of two threads, one often waits for something: a core would be idle.
  options.threading.private_threadpool_size = count + 2
  return dataset.with_options(options)


def num_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on every system
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


class _Pieces:
  """Cuts each batch into pieces, and says what each piece holds.

  Attributes:
    count: how many make up this process's share of a batch.
  """

  def __init__(
    self,
    draw: Callable[[np.ndarray], augment.Draws],
    batch_size: int,
    share: slice,
  ):
    self._draw, self._batch_size = draw, batch_size
    self._share = np.arange(batch_size)[share]
    self.count = next(
      n
      for n in range(1, len(self._share) + 1)
      if len(self._share) % n == 0 and len(self._share) // n <= _MOST_AT_A_TIME
    )

  def __call__(self, number: np.ndarray) -> tuple[augment.Draws, np.ndarray]:
    """Draws and places of piece `number`, counted from step 0 on."""
    step, piece = divmod(int(number), self.count)
    own = np.split(self._share, self.count)[piece]
    places = step * self._batch_size + own
    return self._draw(places), places


def _batches(
  prepared: records.PreparedSet,
  split: records.JpegSplit | records.RawSplit,
  pieces: _Pieces,
  steps: range,
  size: int,
  workers: int,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields images [b, size, size, 3], labels [b] and places [b]."""
  if isinstance(split, records.RawSplit):
    load = _load_raw(split, pieces, size)
  else:
    load = _load_jpeg(split, pieces, size, prepared.image_size)
  workers = workers or num_cores()
  dataset = tf.data.Dataset.range(
    steps.start * pieces.count, steps.stop * pieces.count
  ).map(load, workers, deterministic=True)
  if pieces.count > 1:
    dataset = dataset.batch(pieces.count).map(_join)
  dataset = with_threads(dataset.prefetch(_PREFETCH), workers)
  iterator = dataset.as_numpy_iterator()
  for step in steps:
    try:
      batch = next(iterator)
    except tf.errors.OpError as error:
      raise _damaged(prepared, split, pieces, step) from error
    yield batch


def _damaged(
  prepared: records.PreparedSet,
  split: records.JpegSplit | records.RawSplit,
  pieces: _Pieces,
  step: int,
) -> errors.UserError:
  """Looks for the record that a step could not read."""
  for piece in range(step * pieces.count, (step + 1) * pieces.count):
    draws, _ = pieces(piece)
    for record in draws.records:
      if not _is_whole(split, record, prepared.image_size):
        return prepared.damaged(f'record {record} of a split')
  return prepared.damaged()


def _is_whole(
  split: records.JpegSplit | records.RawSplit, record: int, size: int
) -> bool:
  if isinstance(split, records.RawSplit):
    return True
  try:
    image = images.decode(split.read(np.array([record]))[0])
  except (tf.errors.OpError, IndexError, RuntimeError, ValueError):
    return False
  return image.shape == (size, size, 3)


def _join(*pieces: tf.Tensor) -> tuple[tf.Tensor, ...]:
  """[pieces, n, ...] -> [pieces * n, ...]."""
  return tuple(tf.reshape(x, (-1, *x.shape[2:])) for x in pieces)


def _load_jpeg(
  split: records.JpegSplit, pieces: _Pieces, size: int, image_size: int
):
  """A piece: read here, decoded in C++."""

  def read(number: np.ndarray) -> tuple[np.ndarray, ...]:
    draws, places = pieces(number)
    jpegs = np.array(split.read(draws.records), dtype=object)
    windows = np.insert(draws.corners, [2, 2], size, axis=1)
    return jpegs, windows, draws.flips, split.labels[draws.records], places

  def decode(example: tuple[tf.Tensor, ...]) -> tf.Tensor:
    jpeg, window, flip = example
    # A larger picture has the window as well, of something else.
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
    return image, _vector(label), _vector(place)

  return load


def _load_raw(split: records.RawSplit, pieces: _Pieces, size: int):
  """A piece: copied from the mapped file."""

  def read(number: np.ndarray) -> tuple[np.ndarray, ...]:
    draws, places = pieces(number)
    crops = np.empty((len(places), size, size, 3), np.uint8)
    for crop, record, (top, left), flip in zip(crops, *draws, strict=True):
      window = split[record][top : top + size, left : left + size]
      if flip:
        for colour in range(3):  # several times as fast as all three at once
          crop[..., colour] = window[:, ::-1, colour]
      else:
        crop[:] = window
    return crops, split.labels[draws.records], places

  def load(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
    image, label, place = tf.numpy_function(
      read, [number], [tf.uint8, tf.int32, tf.int64]
    )
    image = tf.ensure_shape(image, (None, size, size, 3))
    return image, _vector(label), _vector(place)

  return load


def _vector(x: tf.Tensor) -> tf.Tensor:
  return tf.ensure_shape(x, (None,))
