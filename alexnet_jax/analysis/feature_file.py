"""A split's features on disk: float32 [N, D] as .npy, with .npy.json beside it.

That one says which network, layer and data they belong to. The .npy appears
under its name when it is complete, and never before.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from alexnet_jax import errors, trained
from alexnet_jax.data import records

_DTYPE = np.dtype('<f4')


def identity(
  run: trained.Trained, prepared: records.PreparedSet, layer: str, split: str
) -> dict[str, object]:
  """What must be the same for features to be the same."""
  info = json.dumps(prepared.info, sort_keys=True)
  return {
    'step': run.step,
    'network': run.digest,
    'layer': layer,
    'split': split,
    'data': prepared.info['source'],
    'data_sha256': hashlib.sha256(info.encode()).hexdigest(),
    'count': prepared.num_examples(split),
  }


class FeatureFile:
  """Features under a name, present or yet to be written.

  Args:
    path: FILE.npy.
    expected: see `identity`.

  Raises:
    UserError: where the file is there and belongs to something else.
  """

  def __init__(self, path: pathlib.Path, expected: dict[str, object]):
    if path.suffix != '.npy':
      raise errors.UserError(f'--features={path} must end in .npy.')
    self._path, self._about = path, path.with_suffix('.npy.json')
    self._expected = expected
    if self.exists:
      self._check()

  @property
  def exists(self) -> bool:
    """Whether it can be read."""
    return self._path.exists()

  def _check(self) -> None:
    about = self._read_about()
    keys = [k for k, v in self._expected.items() if about.get(k) != v]
    if keys:
      raise errors.UserError(
        f'--features={self._path} belongs to something else (its '
        f'{", ".join(keys)} differ); give another name, or remove it.'
      )
    stored = self._open()
    if [list(stored.shape), stored.dtype.str] != about.get('array'):
      raise self._damaged()

  def _read_about(self) -> dict[str, object]:
    if not self._about.exists():
      return {}
    try:
      return json.loads(self._about.read_text())
    except ValueError as error:
      raise self._damaged() from error

  def _open(self) -> np.ndarray:
    try:
      return np.load(self._path, mmap_mode='r')
    except (ValueError, EOFError) as error:
      raise self._damaged() from error

  def _damaged(self) -> errors.UserError:
    return errors.UserError(
      f'--features={self._path} is damaged; remove it to have it written again.'
    )

  def read(self, batch_size: int) -> Iterator[np.ndarray]:
    """Batches [b, D] in order, mapped into memory; the last may be shorter."""
    for start in range(0, self._expected['count'], batch_size):
      # Mapped anew, so that what was read leaves the process's memory.
      yield self._open()[start : start + batch_size]

  @contextlib.contextmanager
  def writer(self) -> Iterator['_Writer']:
    """Writes batches; complete, and in place, where nothing is raised."""
    self._path.parent.mkdir(parents=True, exist_ok=True)
    new = self._path.with_suffix('.npy.new')
    with new.open('wb') as file:
      writer = _Writer(file, self._expected['count'])
      yield writer
    about = self._expected | {'array': [writer.shape, _DTYPE.str]}
    # In this order, no .npy is ever without its own .json.
    self._about.write_text(json.dumps(about, indent=2) + '\n')
    os.replace(new, self._path)


class _Writer:
  """Appends batches to a file, after numpy's header.

  Attributes:
    shape: [N, D], once there is a batch.
  """

  def __init__(self, file, count: int):
    self._file, self.shape = file, [count, 0]

  def append(self, batch: np.ndarray) -> None:
    """Writes [b, D]."""
    if not self._file.tell():
      self.shape[1] = batch.shape[1]
      header = {
        'descr': _DTYPE.str,
        'fortran_order': False,
        'shape': tuple(self.shape),
      }
      np.lib.format.write_array_header_1_0(self._file, header)
    batch.astype(_DTYPE).tofile(self._file)
