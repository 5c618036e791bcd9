"""Loaders on TensorFlow: ours, and tf.data on the original files."""

import pathlib
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf

from alexnet_jax.data import pipeline, records
from experiments.benchmarks import input_worker


def ours(job: input_worker.Job, encoding: str) -> Iterator[np.ndarray]:
  """Yields batches of our pipeline, from a set prepared as JPEG or raw."""
  data = ml_collections.ConfigDict(job.data)
  folder = pathlib.Path(job.directory, encoding)
  batches = pipeline.train_batches(
    records.open_prepared(str(folder), data.name),
    data,
    seed=job.seed,
    batch_size=job.batch_size,
    start_step=0,
    end_step=2**31,
  )
  return (batch['image'] for batch in batches)


def originals(job: input_worker.Job) -> Iterator[np.ndarray]:
  """Yields batches of the source's own files, resized at each reading."""
  side, crop = job.data['image_size'], job.data['crop_size']

  def load(path: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    shape = tf.shape(image)[:2]
    image = tf.image.resize(image, shape * side // tf.reduce_min(shape))
    image = tf.image.random_crop(image, (crop, crop, 3))
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  paths = job.files('originals')
  options = tf.data.Options()
  options.threading.private_threadpool_size = job.workers
  dataset = tf.data.Dataset.from_tensor_slices(paths)
  dataset = dataset.shuffle(len(paths), job.seed).repeat()
  dataset = dataset.map(load, tf.data.AUTOTUNE, deterministic=False)
  dataset = dataset.batch(job.batch_size, drop_remainder=True)
  dataset = dataset.prefetch(input_worker.AHEAD).with_options(options)
  return dataset.as_numpy_iterator()


if __name__ == '__main__':
  input_worker.serve(
    {
      'alexnet_jax jpeg': lambda job: ours(job, 'jpeg'),
      'alexnet_jax raw': lambda job: ours(job, 'raw'),
      'tf.data, originals': originals,
    }
  )
