"""A run of main.py as a process, and what differs between two runs."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from alexnet_jax import errors, train_step
from alexnet_jax.workdir import checkpoints, files, metrics_file

SURVIVED, WRONG, NOT_RUN = 'survived', 'WRONG', 'not run'
ROOT = pathlib.Path(__file__).parents[2]
_GIVE_UP_SECONDS = 600.0
_FLAGS = (
  '--config=configs/quickstart.py',
  '--config.deterministic=True',  # else two runs on a GPU may differ
  '--config.batch_size=16',
  '--config.log_every_steps=5',
  '--config.checkpoint_every_steps=15',
  '--config.eval_every_steps=30',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """Outcome of a case.

  Attributes:
    case: What was done to a run.
    outcome: SURVIVED (with the bits of an undisturbed run), WRONG, or NOT_RUN
      if this machine cannot do it.
    said: What was printed or measured.
  """

  case: str
  outcome: str
  said: str


_started: list['Run'] = []


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
  """Kills the runs that were started inside and are alive at the end."""
  first = len(_started)
  try:
    yield
  finally:
    for run in _started[first:]:
      if run.is_alive():
        run.kill()


class Run:
  """A process of main.py on a terminal, where it shows what it is doing.

  Args:
    directory: Place of its data, unless flags say otherwise, and workdir.
    steps: Number of steps of the whole run.
    flags: Further flags.
    environment: Variables on top of those of this process.
    program: Arguments of python, in place of main.py.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    steps: int,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = ('main.py',),
  ):
    self.workdir = directory / 'run'
    self._began = time.time()
    self._data = directory / 'data'
    directory.mkdir(parents=True, exist_ok=True)
    # Beside the directory, which may be a disk that is full.
    name = f'{directory.name}-{time.monotonic_ns()}.txt'
    self._log = directory.parent / name
    self._log.touch()
    command = [sys.executable, *program, *_FLAGS]
    command += [f'--workdir={self.workdir}', f'--config.data.dir={self._data}']
    command += [f'--config.train_steps={steps}', *flags]
    terminal, its_end = os.openpty()
    termios.tcsetwinsize(its_end, (24, 200))  # progress bars need some width
    self._process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=os.environ | (environment or {}),
      stdout=its_end,
      stderr=its_end,
    )
    os.close(its_end)
    self._copying = threading.Thread(target=self._copy, args=(terminal,))
    self._copying.start()
    _started.append(self)

  def _copy(self, terminal: int) -> None:
    """Writes what the terminal shows to the log."""
    # An error is the end: the process has closed its side.
    with (
      contextlib.suppress(OSError),
      self._log.open('wb', buffering=0) as log,
    ):
      while text := os.read(terminal, 4096):
        log.write(text)
    os.close(terminal)

  def is_preparing(self) -> bool:
    """Returns whether its data set is half written."""
    return any(map(self._is_new, self._data.glob('*.partial/*')))

  def is_training(self) -> bool:
    """Returns whether its progress bar is about training."""
    return self.last_line().startswith('train')

  def is_saving(self) -> bool:
    """Returns whether a checkpoint is there that orbax has not named yet."""
    unnamed = (self.workdir / 'checkpoints').glob('*tmp*')
    return any(map(self._is_new, unnamed))

  def is_evaluating(self) -> bool:
    """Returns whether its progress bar is about an evaluation."""
    return self.last_line().startswith('evaluate')

  def _is_new(self, path: pathlib.Path) -> bool:
    """Returns whether this process wrote the file, not one before it."""
    with contextlib.suppress(FileNotFoundError):
      return path.stat().st_mtime > self._began
    return False

  def is_alive(self) -> bool:
    """Returns whether the process has not ended."""
    return self._process.poll() is None

  def usage(self) -> tuple[int, int, float]:
    """Returns open files, resident bytes and CPU seconds so far (Linux).

    Pages of files, such as libraries, come and go and do not count.
    """
    process = pathlib.Path('/proc') / str(self._process.pid)
    open_files = len(list((process / 'fd').iterdir()))
    _, resident, shared, *_ = (process / 'statm').read_text().split()
    # The name, in brackets, may hold spaces.
    fields = (process / 'stat').read_text().rpartition(')')[2].split()
    ticks = int(fields[11]) + int(fields[12])
    size, rate = os.sysconf('SC_PAGE_SIZE'), os.sysconf('SC_CLK_TCK')
    return open_files, (int(resident) - int(shared)) * size, ticks / rate

  def saved(self) -> list[int]:
    """Returns the steps of its checkpoints."""
    paths = (self.workdir / 'checkpoints').glob('[0-9]*')
    return [int(path.name) for path in paths if path.name.isdecimal()]

  def last_line(self) -> str:
    """Returns the last line that it has shown."""
    with self._log.open('rb') as log:
      log.seek(max(0, self._log.stat().st_size - 2000))
      text = log.read().decode(errors='replace')
    lines = text.replace('\r', '\n').replace('\x1b[A', '\n').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')

  def has_said(self, text: str) -> bool:
    """Returns whether it has shown a text."""
    return text in self._log.read_text(errors='replace')

  def wait_for(self, phase: Callable[['Run'], bool]) -> None:
    """Waits until the run is in a phase.

    Raises:
      UserError: If it does not get there.
    """
    began = time.monotonic()
    while not phase(self):
      if not self.is_alive():
        raise errors.UserError(f'{self._log}: it ended before it was there.')
      if time.monotonic() - began > _GIVE_UP_SECONDS:
        self.kill()
        raise errors.UserError(f'{self._log}: nothing happens any more.')
      time.sleep(0.002)

  def send(self, number: int) -> None:
    """Sends a signal."""
    self._process.send_signal(number)

  def kill(self) -> None:
    """Sends SIGKILL and waits for the end."""
    self.send(signal.SIGKILL)
    self.wait()

  def wait(self) -> int:
    """Waits for the end; returns the exit code, -N for a signal N."""
    try:
      self._process.wait(_GIVE_UP_SECONDS)
    except subprocess.TimeoutExpired:
      self.send(signal.SIGKILL)
      self._process.wait()
    self._copying.join()
    return self._process.returncode

  def finish(self) -> None:
    """Waits for the end.

    Raises:
      UserError: If the exit code is not 0.
    """
    if self.wait():
      raise errors.UserError(f'training failed, see {self._log}.')

  def was_refused(self, part: str) -> bool:
    """Returns whether it ended with code 1 and a sentence that has a part."""
    code, said = self.wait(), self.last_line()
    # Libraries may print tracebacks of their own threads.
    has_traceback = self.has_said(f'"{ROOT / "main.py"}", line')
    is_sentence = said.startswith('error: ') and not has_traceback
    return code == 1 and part in said and is_sentence


def compare(case: str, a: pathlib.Path, b: pathlib.Path, said: str) -> Row:
  """Returns SURVIVED if two runs left the same, else WRONG and the differences.

  Args:
    case: Name of the row.
    a: Workdir of a complete run.
    b: Workdir of another run.
    said: Text of the row.
  """
  found = differences(a, b)
  if found:
    return Row(case, WRONG, f'{said}; differs: {", ".join(found)}')
  return Row(case, SURVIVED, said)


def differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
  """Returns names of arrays and files that are not the same bits.

  The arrays are those of the newest checkpoint. Of metrics.jsonl, `timing`
  does not count.
  """
  first, second = (checkpoints.flatten(newest(path)) for path in (a, b))
  found = [
    name
    for name in sorted(first.keys() | second.keys())
    if _bits(first.get(name)) != _bits(second.get(name))
  ]
  return found + ['metrics.jsonl'] * (rows(a) != rows(b))


def rows(workdir: pathlib.Path) -> list[dict]:
  """Returns the rows of metrics.jsonl without `timing`."""
  read = metrics_file.read(workdir)
  for row in read:
    del row['timing']
  return read


def newest(workdir: pathlib.Path) -> train_step.TrainState:
  """Returns the verified state of a run's newest checkpoint."""
  like = train_step.abstract_train_state(files.read_config(workdir))
  with checkpoints.Checkpointer(workdir) as checkpointer:
    _, state, _ = checkpointer.restore(0, like)
  return state


def _bits(array: np.ndarray | None) -> bytes | None:
  return None if array is None else np.asarray(array).tobytes()
