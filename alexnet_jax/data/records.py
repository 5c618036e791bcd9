"""Prepared data sets on disk: one directory each, complete or absent.

info.json         source, image size, encoding, counts, digests of the files
class_names.txt   one name per line, by label
statistics.npz    of the first split's pixels: mean_image [S, S, 3] and
                  rgb_covariance [3, 3], both float64, on the 0-255 scale
<split>-00000-of-00129.array_record   shards that hold JPEG files, or
<split>-00000-of-00129.raw            that hold only uint8 [n, S, S, 3]
<split>_labels.npy                    int32 [N]
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib

import numpy as np
from array_record.python import array_record_data_source

from alexnet_jax import errors, paths
from alexnet_jax.data import ilsvrc, sources

JPEG = 'jpeg'
RAW = 'raw'
_SUFFIX = {JPEG: 'array_record', RAW: 'raw'}
# Classes that a description names.
_CLASSES_SHOWN = 20
# Bytes of a split: verifying more would delay each start by minutes.
_MAX_VERIFIED = 8 * 2**30


def shard_path(
  directory: pathlib.Path, split: str, shard: int, count: int, encoding: str
) -> pathlib.Path:
  """Returns the path of shard number `shard` of `count`."""
  return directory / f'{split}-{shard:05d}-of-{count:05d}.{_SUFFIX[encoding]}'


def sha256(path: pathlib.Path) -> str:
  """Returns the SHA-256 digest of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def check_digest(path: pathlib.Path, digest: str) -> None:
  """Raises UserError if a file is missing or has another digest."""
  if not path.exists() or sha256(path) != digest:
    raise errors.UserError(
      f'{path} is not as it was written: run `python -m '
      'alexnet_jax.data.prepare` with --check to see all that is damaged, or '
      'remove the directory and prepare the set again.'
    )


@dataclasses.dataclass(frozen=True)
class JpegSplit:
  """Split whose records are JPEG files, with random access.

  Attributes:
    labels: [N] of int32.
    source: Random access to the files.
  """

  labels: np.ndarray
  source: array_record_data_source.ArrayRecordDataSource

  def __len__(self) -> int:
    return len(self.source)

  def read(self, rows: np.ndarray) -> list[bytes]:
    """Returns the JPEG files of the records `rows` [b].

    They are read one after another. Reading them in one call would start a
    thread for each shard that a batch meets, which takes six times as long.
    """
    return [self.source[row] for row in rows.tolist()]


@dataclasses.dataclass(frozen=True)
class RawSplit:
  """Split whose records are pixels, mapped into memory.

  Attributes:
    labels: [N] of int32.
    shards: Arrays [n, S, S, 3] of uint8.
  """

  labels: np.ndarray
  shards: list[np.ndarray]

  @functools.cached_property
  def _starts(self) -> list[int]:
    return [0, *itertools.accumulate(len(shard) for shard in self.shards)]

  def __len__(self) -> int:
    return self._starts[-1]

  def __getitem__(self, row: int) -> np.ndarray:
    """Returns record number `row`, [S, S, 3], mapped but not yet read."""
    shard = bisect.bisect_right(self._starts, row) - 1
    return self.shards[shard][row - self._starts[shard]]


Split = JpegSplit | RawSplit


@dataclasses.dataclass(frozen=True)
class PreparedSet:
  """Prepared data set, opened for reading.

  Attributes:
    directory: Directory that holds its files.
    info: Contents of info.json.
    known_classes: Names that labels count, () for those of class_names.txt.
  """

  directory: pathlib.Path
  info: dict
  known_classes: tuple[str, ...] = ()

  @property
  def image_size(self) -> int:
    """Side of the stored images, in pixels."""
    return self.info['image_size']

  @functools.cached_property
  def class_names(self) -> list[str]:
    """Names of the classes, by label."""
    return list(self.known_classes) or self._stored_names()

  def _stored_names(self) -> list[str]:
    return (self.directory / 'class_names.txt').read_text().splitlines()

  def num_examples(self, split: str) -> int:
    """Returns the number of images of a split."""
    self._check_split(split)
    return self.info['splits'][split]

  def warnings(self) -> list[str]:
    """Returns sentences that qualify the results of a run on this data."""
    counts = self.info['splits']
    if self.info['source'] != sources.IMAGENET or counts == ilsvrc.COUNTS:
      return []
    return [
      f'{self.directory} has {counts["train"]:,} + {counts["validation"]:,} '
      'images, not the 1,281,167 + 50,000 of ILSVRC-2012: its errors compare '
      'with no published number.'
    ]

  def description(self) -> str:
    """Returns lines that name classes, their pictures and files left out."""
    splits, names = self.info['splits'], self.class_names
    labels = [self.open_split(split).labels for split in splits]
    counts = [np.bincount(x, minlength=len(names)) for x in labels]
    shown = [
      f'{name} {" + ".join(map(str, row))}'
      for name, *row in zip(names, *counts, strict=True)
    ]
    more = len(shown) - _CLASSES_SHOWN
    shown[_CLASSES_SHOWN:] = [f'{more} more classes'] if more > 0 else []
    lines = [
      f'{len(names)} classes, with pictures for {" + ".join(splits)}: '
      f'{", ".join(shown)}.'
    ]
    skipped = sum(self.info['skipped'].values(), [])
    if skipped:
      lines.append(f'{len(skipped)} left out: {errors.listed(skipped)}.')
    return '\n'.join(lines)

  def statistics(self) -> dict[str, np.ndarray]:
    """Returns 'mean_image' and 'rgb_covariance' of the first split, 'train'."""
    with np.load(self.directory / 'statistics.npz') as statistics:
      return dict(statistics)

  @functools.cached_property
  def is_grey(self) -> bool:
    """True if all training images are grey: their three colours are equal."""
    return bool(np.ptp(self.statistics()['rgb_covariance']) == 0)

  def shard_paths(self, split: str) -> list[pathlib.Path]:
    """Returns the paths of a split's shards, in order."""
    count, encoding = len(self.info['shards'][split]), self.info['encoding']
    return [
      shard_path(self.directory, split, shard, count, encoding)
      for shard in range(count)
    ]

  def open_split(self, split: str) -> Split:
    """Opens a split, 'train' or 'validation'.

    Raises:
      UserError: If there is no such split, or its files are damaged.
    """
    self._check_split(split)
    if split not in self._opened:
      self._opened[split] = self._open_checked(split)
    return self._opened[split]

  def _check_split(self, split: str) -> None:
    if split not in self.info['splits']:
      raise errors.UserError(
        f'{self.directory} has no split {split!r}: give one of '
        f'{", ".join(self.info["splits"])} as eval.split, or other data.'
      )

  @functools.cached_property
  def _opened(self) -> dict[str, Split]:
    # Each split is opened once: TensorFlow keeps what its functions read from.
    return {}

  def _open_checked(self, split: str) -> Split:
    try:
      opened = self._open(split)
    except (OSError, RuntimeError, ValueError) as error:
      raise self.damaged() from error
    if len(opened) != self.num_examples(split):
      raise self.damaged()
    names = self._stored_names()
    labels, count = opened.labels, len(names)
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
      raise errors.UserError(
        f'{self.directory} has labels from {labels.min()} to {labels.max()} '
        f'for {count} classes; prepare the set again.'
      )
    if not self.known_classes:
      return opened
    known = [self.known_classes.index(name) for name in names]
    return dataclasses.replace(opened, labels=np.array(known, np.int32)[labels])

  def damaged(self, what: str = 'a file') -> errors.UserError:
    """Returns the error that says that something is not as it was stored."""
    return errors.UserError(
      f'{self.directory}: {what} is not as it was stored; run `python -m '
      'alexnet_jax.data.prepare` with --check to see what is damaged.'
    )

  def _open(self, split: str) -> Split:
    labels = np.load(self.directory / f'{split}_labels.npy')
    paths = self.shard_paths(split)
    if self.info['encoding'] == JPEG:
      source = array_record_data_source.ArrayRecordDataSource(
        [str(path) for path in paths]
      )
      return JpegSplit(labels, source)
    # ArrayRecord has checksums of its own; raw pixels have only these.
    if sum(path.stat().st_size for path in paths) <= _MAX_VERIFIED:
      for path, shard in zip(paths, self.info['shards'][split], strict=True):
        check_digest(path, shard['sha256'])
    return RawSplit(labels, [self._map(path) for path in paths])

  def _map(self, path: pathlib.Path) -> np.ndarray:
    empty = not path.stat().st_size  # and cannot be mapped
    pixels = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, 'r')
    return pixels.reshape(-1, self.image_size, self.image_size, 3)


def open_prepared(data_dir: str, name: str) -> PreparedSet | None:
  """Opens the prepared set of a source, or returns None if there is none.

  Args:
    data_dir: Root of the prepared sets.
    name: Name of the source, see `sources`.

  Raises:
    UserError: If an older version of this project wrote the set, or one of its
      small files is damaged.
  """
  directory = paths.local('data.dir', data_dir) / sources.directory_name(name)
  path = directory / 'info.json'
  if not path.is_file():
    return None
  remedy = 'remove the directory and prepare the set again'
  with errors.damage_as_user_error(path, remedy):
    info = json.loads(path.read_text())
  if 'shards' not in info:
    raise errors.UserError(
      f'{directory} was prepared by an older version of this project; remove '
      'it and prepare the set again.'
    )
  for file, digest in info['sha256'].items():
    check_digest(directory / file, digest)
  return PreparedSet(directory, info)
