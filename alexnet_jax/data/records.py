"""Prepared sets on disk: one directory each, complete or absent.

info.json         source, image size, encoding, counts, digests
class_names.txt   one a line, by label
statistics.npz    of the training pixels: mean_image [S, S, 3], 0-255, and
                  rgb_covariance [3, 3] on that scale, both float64
<split>.array_record or <split>.npy   JPEG files, or uint8 [N, S, S, 3]
<split>_labels.npy                    int32 [N]
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np
from array_record.python import array_record_data_source

from alexnet_jax import errors
from alexnet_jax.data import sources

JPEG = 'jpeg'
RAW = 'raw'


def image_path(directory: pathlib.Path, split: str, encoding: str):
  """Where a split's images lie."""
  suffix = 'array_record' if encoding == JPEG else 'npy'
  return directory / f'{split}.{suffix}'


@dataclasses.dataclass(frozen=True)
class PreparedSet:
  """A prepared set, opened for reading.

  Attributes:
    directory: where it lies.
    info: the contents of info.json.
  """

  directory: pathlib.Path
  info: dict

  @property
  def image_size(self) -> int:
    """Side of the stored images, in pixels."""
    return self.info['image_size']

  @functools.cached_property
  def class_names(self) -> list[str]:
    """By label."""
    return (self.directory / 'class_names.txt').read_text().splitlines()

  def num_examples(self, split: str) -> int:
    """How many images `split` has."""
    return self.info['splits'][split]

  def warnings(self) -> list[str]:
    """What a reader of a run's numbers must know about its data."""
    counts = self.info['splits']
    if (
      self.info['source'] != sources.IMAGENET
      or counts == sources.IMAGENET_COUNTS
    ):
      return []
    return [
      f'{self.directory} has {counts["train"]:,} + {counts["validation"]:,} '
      'images, not the 1,281,167 + 50,000 of ILSVRC-2012: its errors compare '
      'with no published number.'
    ]

  def statistics(self) -> dict[str, np.ndarray]:
    """'mean_image' and 'rgb_covariance' of the training set."""
    with np.load(self.directory / 'statistics.npz') as statistics:
      return dict(statistics)

  def open_split(self, split: str) -> 'Split':
    """Opens 'train' or 'validation'.

    Raises:
      UserError: where there is no such split.
    """
    if split not in self.info['splits']:
      raise errors.UserError(
        f'eval.split={split!r} does not exist in {self.directory}: choose '
        f'from {", ".join(self.info["splits"])}.'
      )
    encoding = self.info['encoding']
    path = image_path(self.directory, split, encoding)
    if encoding == JPEG:
      images = array_record_data_source.ArrayRecordDataSource(str(path))
    else:
      images = np.load(path, mmap_mode='r')
    labels = np.load(self.directory / f'{split}_labels.npy')
    return Split(encoding, images, labels)


@dataclasses.dataclass(frozen=True)
class Split:
  """Random access to one split.

  Attributes:
    encoding: JPEG or RAW.
    images: the stored images.
    labels: [N] of int32.
  """

  encoding: str
  images: array_record_data_source.ArrayRecordDataSource | np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def read(self, indices: np.ndarray) -> np.ndarray:
    """Reads images in one call.

    Args:
      indices: [B] of record numbers.

    Returns:
      JPEG: [B] of bytes objects; RAW: [B, S, S, 3] of uint8.
    """
    if self.encoding == RAW:
      return self.images[indices]
    return np.array(self.images.__getitems__(indices.tolist()), dtype=object)


def open_prepared(data_dir: str, name: str) -> PreparedSet | None:
  """Opens the prepared set of source `name`, or returns None."""
  directory = pathlib.Path(data_dir).expanduser() / sources.directory_name(name)
  path = directory / 'info.json'
  if not path.is_file():
    return None
  return PreparedSet(directory, json.loads(path.read_text()))
