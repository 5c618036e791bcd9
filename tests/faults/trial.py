"""A run of main.py as a process, and what differs between two runs."""

import contextlib
import dataclasses
import os
import pathlib
import re
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
SAVE_EVERY = 15  # steps
_GIVE_UP_SECONDS = 600.0
_FLAGS = (
  '--config=configs/quickstart.py',
  '--config.deterministic=True',  # else two runs on a GPU may differ
  '--config.batch_size=16',
  '--config.log_every_steps=5',
  f'--config.checkpoint_every_steps={SAVE_EVERY}',
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

  Attributes:
    workdir: Directory of the run.
    found: Step of the newest checkpoint when the process started, or 0.
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
    self.found = max(self.saved(), default=0)
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
    """Returns the steps of its checkpoints, one being replaced included."""
    paths = (self.workdir / 'checkpoints').glob('[0-9]*')
    names = [path.name.removesuffix('.replaced') for path in paths]
    return [int(name) for name in names if name.isdecimal()]

  def first_step(self) -> int | None:
    """Returns the step that it said it starts from, None before that."""
    return next(iter(starts(self._text())), None)

  def last_step(self) -> int:
    """Returns the last step that its progress bar showed, 0 before that."""
    shown = re.findall(r'[\r\n]train: +\d+%\|[^|]*\| (\d+)/', self._text())
    return int(shown[-1]) if shown else 0

  def _text(self) -> str:
    return self._log.read_text(errors='replace')

  def last_line(self) -> str:
    """Returns the last line that it has shown."""
    with self._log.open('rb') as log:
      log.seek(max(0, self._log.stat().st_size - 2000))
      text = log.read().decode(errors='replace')
    # An error may follow a progress bar on the same line.
    lines = re.split(r'\r|\x1b\[A|\n|(?<!output )(?=error: )', text)
    return next((line.strip() for line in reversed(lines) if line.strip()), '')

  def has_said(self, text: str) -> bool:
    """Returns whether it has shown a text."""
    return text in self._text()

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

  def wait(self, longest: float = _GIVE_UP_SECONDS) -> int:
    """Waits for the end; returns the exit code, -N for a signal N.

    Args:
      longest: Seconds after which it is killed.
    """
    try:
      self._process.wait(longest)
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


def starts(log: str) -> list[int]:
  """Returns the steps that the starts in a log said they go on from."""
  return [int(step) for step in re.findall(r'; step (\d+) of \d+\. ', log)]


def compare(
  case: str,
  whole: pathlib.Path,
  runs: Sequence[Run],
  said: str,
  most: int = 2 * SAVE_EVERY,
) -> Row:
  """Returns SURVIVED if the starts of a run lost nothing, else WRONG and why.

  Args:
    case: Name of the row.
    whole: Workdir of a run that nobody touched.
    runs: Starts of another run, from the first to the last.
    said: Text of the row.
    most: Number of steps that a start may make again. A checkpoint is written
      while steps go on, so that a kill can cost two intervals, not one.
  """
  found = differences(whole, runs[-1].workdir)
  reached, again = 0, [0]
  for run in runs:
    first = run.first_step()
    if first is None:  # it was stopped before that
      continue
    if first != run.found:
      found.append(f'started from step {first}, not {run.found}')
    again.append(max(0, reached - first))
    reached = max(first, run.last_step())
  said += f'; {sum(again)} steps made again, {max(again)} at most at a start'
  if max(again) > most:
    found.append(f'more than {most} steps made again')
  if found:
    return Row(case, WRONG, f'{said}; wrong: {", ".join(found)}')
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
