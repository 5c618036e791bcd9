"""A run of main.py as a process, and what two runs do not have in common."""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from alexnet_jax import checkpoint, errors, train_state
from alexnet_jax import rows as rows_lib
from alexnet_jax import workdir as workdir_lib

SURVIVED, REFUSED, WRONG = 'survived', 'refused', 'WRONG'
NOT_RUN = 'not run'
ROOT = pathlib.Path(__file__).parents[2]
_GIVE_UP = 600.0  # seconds
BATCH_SIZE = 16
_FLAGS = (
  '--config=configs/quickstart.py',
  '--config.deterministic=True',  # else two runs on a GPU may differ
  f'--config.batch_size={BATCH_SIZE}',
  '--config.log_every_steps=5',
  '--config.checkpoint_every_steps=15',
  '--config.eval_every_steps=30',
)


@dataclasses.dataclass(frozen=True)
class Row:
  """What became of a case.

  Attributes:
    case: what was done.
    outcome: SURVIVED (with the bits of an undisturbed run), REFUSED (with a
      sentence), WRONG, or NOT_RUN where this machine cannot.
    said: what was printed, or measured.
  """

  case: str
  outcome: str
  said: str


_started: list['Run'] = []


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
  """Kills runs that were started inside and are still alive at its end."""
  first = len(_started)
  try:
    yield
  finally:
    for run in _started[first:]:
      if run.is_alive():
        run.kill()


class Run:
  """A process of main.py, and what it is doing.

  Args:
    directory: of its data (unless flags say otherwise), workdir and log.
    steps: of the whole run.
    flags: more of them.
    environment: variables on top of this process's.
    prefix: a command that runs it.
    program: in place of main.py, for python.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    steps: int,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = ('main.py',),
  ):
    self.workdir = directory / 'run'
    self._began = time.time()
    self._data = directory / 'data'
    directory.mkdir(parents=True, exist_ok=True)
    # Beside it: the directory may be a disk that is full.
    name = f'{directory.name}-{time.monotonic_ns()}.txt'
    self._log = directory.parent / name
    command = [*prefix, sys.executable, *program, *_FLAGS]
    command += [f'--workdir={self.workdir}', f'--config.data.dir={self._data}']
    command += [f'--config.train_steps={steps}', *flags]
    with self._log.open('w') as log:
      self._process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=log,
        stderr=subprocess.STDOUT,
      )
    _started.append(self)

  def is_preparing(self) -> bool:
    """Whether its data set is half there."""
    return any(map(self._is_new, self._data.glob('*.partial/*')))

  def is_training(self) -> bool:
    """Whether it makes steps."""
    return self.last_line().startswith('train')

  def is_saving(self) -> bool:
    """Whether orbax has not yet given a checkpoint its name."""
    unnamed = (self.workdir / 'checkpoints').glob('*tmp*')
    return any(map(self._is_new, unnamed))

  def _is_new(self, path: pathlib.Path) -> bool:
    """Whether this process wrote there, not one before it."""
    with contextlib.suppress(FileNotFoundError):
      return path.stat().st_mtime > self._began
    return False

  def is_evaluating(self) -> bool:
    """Whether that is what its progress bar is about."""
    return self.last_line().startswith('evaluate')

  def is_alive(self) -> bool:
    """Whether it has not ended."""
    return self._process.poll() is None

  def notes_signals(self) -> bool:
    """Whether it would note SIGTERM, rather than end at once (Linux)."""
    status = pathlib.Path(f'/proc/{self._process.pid}/status').read_text()
    caught = int(re.search(r'SigCgt:\s*(\w+)', status)[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)

  def usage(self) -> tuple[int, int, float]:
    """Open files, resident bytes, and CPU seconds so far (Linux).

    Pages of files, such as libraries, come and go and do not count.
    """
    process = pathlib.Path('/proc') / str(self._process.pid)
    files = len(list((process / 'fd').iterdir()))
    _, resident, shared, *_ = (process / 'statm').read_text().split()
    # The name, in brackets, may hold spaces.
    fields = (process / 'stat').read_text().rpartition(')')[2].split()
    ticks = int(fields[11]) + int(fields[12])
    size, rate = os.sysconf('SC_PAGE_SIZE'), os.sysconf('SC_CLK_TCK')
    return files, (int(resident) - int(shared)) * size, ticks / rate

  def saved(self) -> list[int]:
    """Steps of its checkpoints."""
    paths = (self.workdir / 'checkpoints').glob('[0-9]*')
    return [int(path.name) for path in paths if path.name.isdecimal()]

  def last_line(self) -> str:
    """Of its output."""
    with self._log.open('rb') as log:
      log.seek(max(0, self._log.stat().st_size - 2000))
      text = log.read().decode(errors='replace')
    lines = text.replace('\r', '\n').replace('\x1b[A', '\n').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')

  def has_said(self, text: str) -> bool:
    """Whether that is anywhere in its output."""
    return text in self._log.read_text(errors='replace')

  def wait_for(self, phase: Callable[['Run'], bool]) -> None:
    """Until it is in a phase.

    Raises:
      UserError: where it does not get there.
    """
    began = time.monotonic()
    while not phase(self):
      if not self.is_alive():
        raise errors.UserError(f'{self._log}: it ended before it was there.')
      if time.monotonic() - began > _GIVE_UP:
        self.kill()
        raise errors.UserError(f'{self._log}: nothing happens any more.')
      time.sleep(0.002)

  def send(self, number: int) -> None:
    """A signal."""
    self._process.send_signal(number)

  def kill(self) -> None:
    """SIGKILL, and waits."""
    self.send(signal.SIGKILL)
    self._process.wait()

  def wait(self) -> int:
    """Until its end; the exit code, negative for a signal that ended it."""
    try:
      return self._process.wait(_GIVE_UP)
    except subprocess.TimeoutExpired:
      self.kill()
      return self._process.returncode

  def finish(self) -> None:
    """Until its end.

    Raises:
      UserError: where that is a failure.
    """
    if self.wait():
      raise errors.UserError(f'training failed, see {self._log}.')


def compare(case: str, a: pathlib.Path, b: pathlib.Path, said: str) -> Row:
  """SURVIVED where two runs left the same, else WRONG and what differs.

  Args:
    case: for the row.
    a: workdir of a run that is complete.
    b: of another.
    said: for the row.
  """
  found = differences(a, b)
  if found:
    return Row(case, WRONG, f'{said}; differs: {", ".join(found)}')
  return Row(case, SURVIVED, said)


def differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
  """Arrays of the newest checkpoint that are not the same bits, and metrics."""
  states, metrics = zip(*map(_result, (a, b)), strict=True)
  names = states[0].keys() | states[1].keys()
  found = [
    name
    for name in sorted(names)
    if _bits(states[0].get(name)) != _bits(states[1].get(name))
  ]
  return found + ['metrics.jsonl'] * (metrics[0] != metrics[1])


def refused(case: str, run: Run, part: str) -> Row:
  """REFUSED for exit code 1 and one sentence that has a part, else WRONG."""
  code, said = run.wait(), run.last_line()
  outcome = REFUSED if has_refused(run, code, part) else WRONG
  return Row(case, outcome, f'exit code {code}: "{said}"')


def has_refused(run: Run, code: int, part: str) -> bool:
  """Whether exit code and output are those of a sentence that has a part."""
  said = run.last_line()
  # Libraries may print their own tracebacks, from their threads.
  has_traceback = run.has_said(f'"{ROOT / "main.py"}", line')
  is_sentence = said.startswith('error: ') and not has_traceback
  return code == 1 and part in said and is_sentence


def rows(workdir: pathlib.Path) -> list[dict]:
  """Of metrics.jsonl, without `timing`, which is never the same."""
  read = rows_lib.read(workdir)
  for row in read:
    del row['timing']
  return read


def newest(workdir: pathlib.Path) -> train_state.TrainState:
  """The state of a run's newest checkpoint, verified."""
  like = train_state.abstract_train_state(workdir_lib.read_config(workdir))
  with checkpoint.Checkpointer(workdir) as checkpointer:
    state, _ = checkpointer.restore(0, like)
  return state


def _result(workdir: pathlib.Path) -> tuple[dict[str, np.ndarray], list[dict]]:
  return checkpoint.flatten(newest(workdir)), rows(workdir)


def _bits(array: np.ndarray | None) -> bytes | None:
  return None if array is None else np.asarray(array).tobytes()
