"""Where a run's metrics are written, and the clock of their speed."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from alexnet_jax import hosts
from alexnet_jax import rows as rows_lib


class MetricsWriter:
  """Appends rows to metrics.jsonl, and the same numbers to TensorBoard.

  Args:
    workdir: of the run.
    step: from which the run goes on; later rows, which it writes again, go.
    rows: of that step, which take the place of what is there; None to leave it.

  Attributes:
    last_loss: of training, as it was last logged; None before.

  Raises:
    UserError: where metrics.jsonl has a line that is no row.
  """

  def __init__(
    self, workdir: pathlib.Path, step: int, rows: Sequence[dict] | None
  ):
    self._path = workdir / 'metrics.jsonl'
    self._last_rows = list(rows or ())
    self._keep(step if rows is None else step - 1)
    self._file = self._path.open('a')
    self._tensorboard = tf.summary.create_file_writer(str(workdir))

  def _keep(self, last_step: int) -> None:
    """Rows up to that step, and those that were given."""
    kept = [r for r in rows_lib.parse(self._path) if r['step'] <= last_step]
    new = self._path.with_suffix('.new')
    rows = [*kept, *self._last_rows]
    losses = [row.get('loss') for row in rows if row['split'] == 'train']
    self.last_loss = losses[-1] if losses else None
    new.write_text(rows_lib.dump(rows))
    os.replace(new, self._path)

  def rows(self, step: int) -> list[dict]:
    """What has been written for a step, if that is the last one written."""
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
    self._file.write(rows_lib.dump([row]))
    self._file.flush()
    # NumPy's numbers, for TensorFlow keeps each Python number that it turns
    # into a tensor.
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
  """For processes that leave writing to the first."""

  last_loss = None

  def __exit__(self, *_) -> None:
    """Has nothing to close."""

  def write(self, *row) -> None:
    """Writes nothing."""

  def rows(self, step: int) -> list[dict]:
    """None."""
    del step
    return []


def create_writer(
  workdir: pathlib.Path, step: int, rows: Sequence[dict] | None
) -> MetricsWriter | NoWriter:
  """A `MetricsWriter`, if this is the process that writes."""
  if hosts.is_first():
    return MetricsWriter(workdir, step, rows)
  return NoWriter()


class Clock:
  """Measures a logging window, without the pauses in it.

  Args:
    batch_size: examples of a step.
  """

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self.restart()

  def restart(self) -> None:
    """Begins a window."""
    self._start, self._steps = time.perf_counter(), 0

  def tick(self) -> None:
    """Counts a step."""
    self._steps += 1

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves what happens inside out of the window."""
    began = time.perf_counter()
    yield
    self._start += time.perf_counter() - began

  def read(self) -> dict[str, float]:
    """Seconds of the window so far and training images a second."""
    seconds = time.perf_counter() - self._start
    rate = self._steps * self._batch_size / seconds
    return {'seconds': seconds, 'examples_per_second': rate}
