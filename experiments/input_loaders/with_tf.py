"""Loaders on TensorFlow: ours, tf.data on the originals, the ceilings."""

import concurrent.futures
import pathlib
from collections.abc import Callable

import ml_collections
import numpy as np
import tensorflow as tf

from alexnet_jax.data import images, pipeline
from experiments.input_loaders import contenders


def alexnet_jax_jpeg(job: contenders.Job) -> contenders.Batches:
  """Our pipeline on a set prepared as JPEG."""
  return _alexnet_jax(job, 'jpeg')


def alexnet_jax_raw(job: contenders.Job) -> contenders.Batches:
  """Our pipeline on a set prepared as raw pixels."""
  return _alexnet_jax(job, 'raw')


def _alexnet_jax(job: contenders.Job, encoding: str) -> contenders.Batches:
  batches = pipeline.train_batches(
    job.images.prepared(encoding),
    ml_collections.ConfigDict(job.data),
    seed=job.seed,
    batch_size=job.batch_size,
    start_step=0,
    end_step=2**31,
  )
  return (batch['image'] for batch in batches)


def originals(job: contenders.Job) -> contenders.Batches:
  """The source's own files, resized whenever they are read."""
  size, crop = job.data['image_size'], (job.crop_size, job.crop_size, 3)

  def load(path: tf.Tensor) -> tf.Tensor:
    image = decode_by_default(path)
    shape = tf.shape(image)[:2]
    image = tf.image.resize(image, shape * size // tf.reduce_min(shape))
    image = tf.image.random_crop(image, crop)
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  paths = job.images.originals()
  dataset = tf.data.Dataset.from_tensor_slices(paths)
  return _batches(dataset.shuffle(len(paths), job.seed).repeat(), load, job)


def decode_only(job: contenders.Job) -> contenders.Batches:
  """Decodes crops at fixed places; a batch is one value of each."""
  encoded = [pathlib.Path(path).read_bytes() for path in job.images.files()]
  windows = _windows(job, len(encoded))

  def load(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    return images.decode_crop(jpeg, window)[0, 0, 0]

  dataset = tf.data.Dataset.from_tensor_slices((encoded, windows))
  return _batches(dataset.repeat(), load, job)


def copy_only(job: contenders.Job) -> contenders.Batches:
  """Copies crops at fixed places into one and the same batch."""
  pixels = np.stack([decode_as_prepared(path) for path in job.images.files()])
  windows = _windows(job, len(pixels))
  size = job.crop_size
  batch = np.zeros((job.batch_size, size, size, 3), np.uint8)

  def copy(share: np.ndarray) -> None:
    for place in share:
      image = place % len(windows)
      top, left, *_ = windows[image]
      batch[place] = pixels[image, top : top + size, left : left + size]

  shares = np.array_split(np.arange(job.batch_size), job.workers)
  with concurrent.futures.ThreadPoolExecutor(job.workers) as pool:
    while True:
      list(pool.map(copy, shares))
      yield batch


def _windows(job: contenders.Job, count: int) -> np.ndarray:
  """Random (top, left, height, width) of `count` crops."""
  rng = np.random.default_rng(job.seed)
  margin = job.data['image_size'] - job.crop_size
  corners = rng.integers(0, margin + 1, (count, 2), np.int32)
  return np.hstack([corners, np.full((count, 2), job.crop_size, np.int32)])


def _batches(
  dataset: tf.data.Dataset, load: Callable, job: contenders.Job
) -> contenders.Batches:
  """Maps `load` in the job's number of threads."""
  options = tf.data.Options()
  options.threading.private_threadpool_size = job.workers
  dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=False)
  dataset = dataset.batch(job.batch_size, drop_remainder=True)
  dataset = dataset.prefetch(contenders.AHEAD)
  return dataset.with_options(options).as_numpy_iterator()


def decode_as_prepared(path: str) -> np.ndarray:
  """As our pipeline does it."""
  return images.decode(tf.io.read_file(path)).numpy()


def decode_by_default(path: str) -> tf.Tensor:
  """As most programs do it."""
  return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
