"""Starts the workers and times them in turn."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
from collections.abc import Iterator

from alexnet_jax import errors
from experiments.benchmarking import busy

_EXIT_SECONDS = 10
_ROOT = pathlib.Path(__file__).parents[2]


class Worker:
  """A process of `worker.serve`, stopped unless it measures.

  Attributes:
    status: 'ready', 'not installed' or 'failed'.
    reason: why it is not ready.
    about: what it reports beside rates.
  """

  def __init__(
    self,
    arguments: list[str],
    log: pathlib.Path,
    environment: dict[str, str] | None = None,
  ):
    """Starts a process and waits until it is ready.

    Args:
      arguments: the command.
      log: file for what it prints.
      environment: variables beside this process's own.
    """
    self._log = log
    with log.open('w') as stderr:
      self._process = subprocess.Popen(
        arguments,
        cwd=_ROOT,
        env=os.environ | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        # A group, which is stopped with its own workers, but of this session:
        # should this program be killed, its stopped groups are hung up.
        process_group=0,
      )
    try:
      answer = self._answer()
    except errors.UserError as error:
      answer = {'status': 'failed', 'reason': str(error)}
    self.status = answer['status']
    self.reason = answer.get('reason', '')
    self.about = answer.get('about', {})
    self._signal(signal.SIGSTOP)

  def measure(self, what: str, seconds: float) -> tuple[float, float | None]:
    """Lets it work; returns images per second, and others' cores meanwhile."""
    others = busy.Others(self._process.pid)
    self._signal(signal.SIGCONT)
    command = json.dumps({'what': what, 'seconds': seconds})
    with contextlib.suppress(BrokenPipeError):  # then there is no answer
      print(command, file=self._process.stdin, flush=True)
    answer = self._answer()
    self._signal(signal.SIGSTOP)
    return answer['images'] / answer['seconds'], others.cores()

  def close(self) -> None:
    """Ends it, by itself if it can."""
    self._signal(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(_EXIT_SECONDS)
    self._signal(signal.SIGKILL)
    self._process.wait()

  def _answer(self) -> dict:
    line = self._process.stdout.readline()
    if not line:
      text = self._log.read_text().strip().splitlines() or ['no message']
      raise errors.UserError(f'{self._log.stem} failed: {text[-1]}')
    return json.loads(line)

  def _signal(self, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, number)


@dataclasses.dataclass
class Entry:
  """A worker, one thing that it measures, and what came out.

  Attributes:
    name: for the report.
    worker: measures it.
    what: as `worker` calls it.
    rates: images per second, a round each.
    others: cores that other programs used meanwhile, where that is known.
  """

  name: str
  worker: Worker
  what: str
  rates: list[float] = dataclasses.field(default_factory=list)
  others: list[float | None] = dataclasses.field(default_factory=list)

  def measure(self, seconds: float) -> str:
    """Adds a round; returns what it gave, for people."""
    try:
      rate, others = self.worker.measure(self.what, seconds)
    except errors.UserError as error:  # the others go on
      self.worker.status, self.worker.reason = 'failed', str(error)
      return f'{self.name}: {error}'
    self.rates.append(rate)
    self.others.append(others)
    disturbed = '' if others is None else f' (others: {others:.2f} cores)'
    return f'{self.name}: {rate:,.0f} images/s{disturbed}'

  def summary(self) -> dict[str, object]:
    """Median, least and largest rate, and all of them."""
    return {
      'median': statistics.median(self.rates),
      'min': min(self.rates),
      'max': max(self.rates),
      'rates': self.rates,
      'others': self.others,
    }


@contextlib.contextmanager
def closing(workers: list[Worker]) -> Iterator[None]:
  """Ends all workers of a list, those included that are added later."""
  try:
    yield
  finally:
    for worker in workers:
      worker.close()


def run(entries: list[Entry], rounds: int, seconds: float, seed: int) -> None:
  """Measures every entry once a round, in a new random order each."""
  rng = random.Random(seed)
  for i in range(rounds):
    ready = [entry for entry in entries if entry.worker.status == 'ready']
    for entry in rng.sample(ready, len(ready)):
      print(f'round {i + 1} of {rounds}: {entry.measure(seconds)}')
