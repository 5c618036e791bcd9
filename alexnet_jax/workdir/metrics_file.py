"""metrics.jsonl: a line of JSON for each log and each evaluation of a run."""

import contextlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from alexnet_jax import atomic, errors, multihost
from alexnet_jax.data.lazy import tf

Row = dict[str, object]
_SPLITS = ('train', 'validation')


def read(workdir: pathlib.Path) -> list[Row]:
  """Returns the rows that a run has written so far.

  Raises:
    UserError: If there are none, or a line is no row.
  """
  found = parse(workdir / 'metrics.jsonl')
  if not found:
    raise errors.UserError(
      f'workdir={workdir} has no metrics yet; give the workdir of a run that '
      'has logged something.'
    )
  return found


def parse(path: pathlib.Path) -> list[Row]:
  """Returns the rows of a file, none if it does not exist.

  Raises:
    UserError: If a line is no row.
  """
  # A damaged byte is named with its line.
  text = path.read_text(errors='replace') if path.exists() else ''
  # A run that trains, or was cut off, may leave a last line without its end.
  lines = [x for x in text.splitlines(keepends=True) if x.endswith('\n')]
  return [_parse_line(path, line) for line in lines]


def dump(rows: Iterable[Mapping[str, object]]) -> str:
  """Returns the text of a file with these rows."""
  return ''.join(json.dumps(row) + '\n' for row in rows)


def _parse_line(path: pathlib.Path, line: str) -> Row:
  try:
    row = json.loads(line)
    if type(row['step']) is not int or row['split'] not in _SPLITS:
      raise ValueError('step or split')
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{path} has a line that is no row, {line[:40]!r}; mend it, or start a '
      'new workdir.'
    ) from error
  return row


def check_numbers(
  workdir: pathlib.Path, rows: Iterable[Row], names: Sequence[str]
) -> None:
  """Raises UserError if a row has no finite number of one of these names."""
  for row, name in itertools.product(rows, names):
    value = row.get(name)
    if type(value) not in (int, float) or not math.isfinite(value):
      raise errors.UserError(
        f'{workdir}/metrics.jsonl has {name}={value!r} at step {row["step"]}, '
        'which is no finite number; mend that row, or give another run.'
      )


class MetricsWriter:
  """Appends rows to metrics.jsonl, and the same numbers to TensorBoard's file.

  Args:
    workdir: Directory of the run.
    step: Step that the run goes on from; later rows are dropped, since the run
      writes them again.
    rows: Rows of that step from the checkpoint, which replace those in the
      file.
    num_rows: Number of rows up to that step; a line says if some are lost.

  Attributes:
    last_loss: Training loss of the last row, None before the first.
    num_rows: Number of rows that the run has written so far.

  Raises:
    UserError: If metrics.jsonl has a line that is no row.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    step: int,
    rows: Sequence[dict],
    num_rows: int,
  ):
    self._path = workdir / 'metrics.jsonl'
    self._last_rows = list(rows)
    self.num_rows = num_rows
    self._replace_from(step)
    self._file = self._path.open('a')
    self._tensorboard = tf.summary.create_file_writer(str(workdir))

  def _replace_from(self, step: int) -> None:
    kept = [r for r in parse(self._path) if r['step'] < step]
    rows = [*kept, *self._last_rows]
    losses = [row.get('loss') for row in rows if row['split'] == 'train']
    self.last_loss = losses[-1] if losses else None
    if len(rows) < self.num_rows:
      multihost.log(
        f'Warning: {self._path} has lost {self.num_rows - len(rows)} of '
        f'{self.num_rows} rows up to step {step}; the run goes on without them.'
      )
    atomic.write_text(self._path, dump(rows))

  def rows(self, step: int) -> list[dict]:
    """Returns the newest rows if they are of `step`, else none."""
    return [row for row in self._last_rows if row['step'] == step]

  def write(
    self, step: int, epoch: float, split: str, values: dict, timing: dict
  ) -> None:
    """Writes one row; (step, split) must be new."""
    row = {'step': step, 'epoch': epoch, 'split': split, **values}
    row['timing'] = timing
    if split == 'train':
      self.last_loss = values['loss']
    self._last_rows = [*self.rows(step), row]
    self.num_rows += 1
    self._file.write(dump([row]))
    self._file.flush()
    # NumPy's numbers: TensorFlow keeps every Python number that it is given.
    with self._tensorboard.as_default(np.int64(step)):
      for name, value in (values | timing).items():
        tf.summary.scalar(f'{split}/{name}', np.float32(value))

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_) -> None:
    """Closes both files."""
    self._file.close()
    self._tensorboard.close()


class NoWriter(contextlib.AbstractContextManager):
  """Stands in for a `MetricsWriter` in processes that write nothing."""

  last_loss = None
  num_rows = 0

  def __exit__(self, *_) -> None:
    """Has nothing to close."""

  def write(self, *row) -> None:
    """Ignores the row."""

  def rows(self, step: int) -> list[dict]:
    """Returns no rows."""
    del step
    return []


def create_writer(
  workdir: pathlib.Path, step: int, rows: Sequence[dict], num_rows: int
) -> MetricsWriter | NoWriter:
  """Returns a `MetricsWriter` in the primary process, else a `NoWriter`."""
  if multihost.is_primary():
    return MetricsWriter(workdir, step, rows, num_rows)
  return NoWriter()
