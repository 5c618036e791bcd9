"""Checks a prepared set against its own info.json."""

import numpy as np
import tqdm

from alexnet_jax import errors
from alexnet_jax.data import images, pipeline, records, statistics

_BATCH_SIZE = 64


def check(prepared: records.PreparedSet) -> None:
  """Reads all of a prepared set.

  Digests and counts of the shards, count and range of the labels, that every
  image decodes, and that mean image and covariance are those of the images.

  Raises:
    UserError: naming the file that is not as it was written.
  """
  for split in prepared.info['splits']:
    _check_labels(prepared, split)
    _check_shards(prepared, split)
    sums = _pixel_sums(prepared, split)
    if split == 'train':
      _check_statistics(prepared, sums)


def _damaged(path: object, what: str) -> errors.UserError:
  return errors.UserError(
    f'{path} {what}; remove the directory and prepare the set again.'
  )


def _check_labels(prepared: records.PreparedSet, split: str) -> None:
  path = prepared.directory / f'{split}_labels.npy'
  labels, count = np.load(path), prepared.num_examples(split)
  if len(labels) != count:
    raise _damaged(path, f'has {len(labels)} labels instead of {count}')
  classes = len(prepared.class_names)
  if not ((labels >= 0) & (labels < classes)).all():
    raise _damaged(path, f'has labels outside 0 to {classes - 1}')


def _check_shards(prepared: records.PreparedSet, split: str) -> None:
  shards = prepared.info['shards'][split]
  count = sum(shard['images'] for shard in shards)
  if count != prepared.num_examples(split):
    raise _damaged(prepared.directory / 'info.json', 'has other counts')
  bar = tqdm.tqdm(
    list(zip(prepared.shard_paths(split), shards, strict=True)),
    desc=f'digests of {split}',
    unit='shard',
  )
  for path, shard in bar:
    records.check_digest(path, shard['sha256'])


def _pixel_sums(
  prepared: records.PreparedSet, split: str
) -> statistics.PixelSums:
  """Decodes every image of a split."""
  sums = statistics.PixelSums(prepared.image_size)
  batches = pipeline.eval_batches(prepared, split, _BATCH_SIZE)
  with tqdm.tqdm(total=prepared.num_examples(split), unit='image') as bar:
    bar.set_description(f'images of {split}')
    for batch in batches:
      for image in batch['image'][batch['mask'] > 0]:
        sums.add(image, images.color_products(image).numpy())
        bar.update()
  return sums


def _check_statistics(
  prepared: records.PreparedSet, sums: statistics.PixelSums
) -> None:
  stored = prepared.statistics()
  for name, value in sums.statistics().items():
    if not np.array_equal(stored[name], value):
      path = prepared.directory / 'statistics.npz'
      raise _damaged(path, f'has another {name} than the images')
