"""Batches as a pure function of (seed, step).

Epoch e is a permutation keyed by (seed, e); example i of the run is position
i mod N of epoch i div N, and step k holds examples kB to kB + B - 1. Nothing
has state: any step is reached at once.
"""

import functools
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf

from alexnet_jax.data import augment, records

Batch = dict[str, np.ndarray]
_PREFETCH = 4  # batches


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  return np.random.default_rng([seed, epoch]).permutation(num_examples)


def example_records(
  seed: int, positions: np.ndarray, num_examples: int
) -> np.ndarray:
  """Which record each example of the run is.

  Args:
    seed: of the run.
    positions: [B] of consecutive places in the run.
    num_examples: N.

  Returns:
    [B] of record numbers in 0..N - 1.
  """
  epochs = positions // num_examples
  return np.concatenate(
    [
      _epoch_order(seed, int(epoch), num_examples)[
        positions[epochs == epoch] % num_examples
      ]
      for epoch in np.unique(epochs)
    ]
  )


def train_batches(
  prepared: records.PreparedSet,
  data: ml_collections.ConfigDict,
  *,
  seed: int,
  batch_size: int,
  start_step: int,
  end_step: int,
) -> Iterator[Batch]:
  """Augmented batches of the steps from `start_step` up to `end_step`.

  Args:
    prepared: the set to read.
    data: `config.data`.
    seed: keys order, crops and flips.
    batch_size: B, of the global batch.
    start_step: number of the first batch.
    end_step: one past the last.

  Yields:
    {'image': [B, c, c, 3] of uint8, 'label': [B] of int32, 'index': [B] of
    uint32, each example's place in the run}.
  """
  split = prepared.open_split('train')

  def read(step: np.ndarray):
    positions = step * batch_size + np.arange(batch_size)
    indices = example_records(seed, positions, len(split))
    return split.read(indices), split.labels[indices], positions

  def crop(image: tf.Tensor, label: tf.Tensor, position: tf.Tensor):
    window = augment.crop_window(
      seed, position, data.image_size, data.crop_size
    )
    image = _cropped(image, window, data.crop_size)
    if data.flip:
      mirror = augment.flips(seed, position)
      image = tf.cond(mirror, lambda: image[:, ::-1], lambda: image)
    return {'image': image, 'label': label, 'index': position}

  dataset = tf.data.Dataset.range(start_step, end_step)
  dataset = dataset.map(_reader(read, split, data.image_size)).unbatch()
  dataset = dataset.map(crop, tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(batch_size).prefetch(_PREFETCH)
  for batch in dataset.as_numpy_iterator():
    yield batch | {'index': batch['index'].astype(np.uint32)}


def eval_batches(
  prepared: records.PreparedSet, split_name: str, batch_size: int
) -> Iterator[Batch]:
  """Whole images of a split in order, the last batch padded.

  Yields:
    {'image': [B, S, S, 3] of uint8, 'label': [B] of int32, 'mask': [B] of
    float32, 0 for padding}; the masks add up to the split's size.
  """
  split = prepared.open_split(split_name)
  size = prepared.image_size

  def read(number: np.ndarray):
    positions = number * batch_size + np.arange(batch_size)
    indices = np.minimum(positions, len(split) - 1)
    return split.read(indices), split.labels[indices], positions

  def whole(image: tf.Tensor, label: tf.Tensor, position: tf.Tensor):
    mask = tf.cast(position < len(split), tf.float32)
    image = _cropped(image, tf.zeros(2, tf.int32), size)
    return {'image': image, 'label': label, 'mask': mask}

  dataset = tf.data.Dataset.range(-(-len(split) // batch_size))
  dataset = dataset.map(_reader(read, split, size)).unbatch()
  dataset = dataset.map(whole, tf.data.AUTOTUNE, deterministic=True)
  dataset = dataset.batch(batch_size).prefetch(_PREFETCH)
  return dataset.as_numpy_iterator()


def _reader(read, split: records.Split, size: int):
  """Wraps `read` for tf.data: one call reads a batch."""
  raw = split.encoding == records.RAW

  def mapped(step: tf.Tensor):
    image, label, position = tf.numpy_function(
      read, [step], [tf.uint8 if raw else tf.string, tf.int32, tf.int64]
    )
    image.set_shape((None, size, size, 3) if raw else (None,))
    label.set_shape((None,))
    position.set_shape((None,))
    return image, label, position

  return mapped


def _cropped(image: tf.Tensor, window: tf.Tensor, size: int) -> tf.Tensor:
  """Cuts [size, size, 3] from JPEG bytes or from pixels."""
  if image.dtype == tf.string:
    place = tf.concat([window, [size, size]], axis=0)
    image = tf.io.decode_and_crop_jpeg(image, place, channels=3)
  else:
    image = tf.slice(image, [window[0], window[1], 0], [size, size, 3])
  return tf.ensure_shape(image, (size, size, 3))
