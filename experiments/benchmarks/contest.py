"""Starts processes and times them in turn.

Each contender is a process that calls `serve`. It warms up and is then stopped
with SIGSTOP, with all its own processes. In each round every contender measures
once, alone, in a new random order, so that a slow minute of the machine does
not hit the same one each time.

A contender writes one line of JSON when it is ready. It then answers each
command, a line {"what", "seconds"}, with a line {"images", "seconds"}.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from alexnet_jax import errors

# Takes the seconds to measure; returns images and the seconds that they took.
Measure = Callable[[float], tuple[int, float]]

# glibc's malloc: huge pages, and memory that stays with the process.
MALLOC = (
  'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:'
  'glibc.malloc.trim_threshold=17179869184'
)
_EXIT_SECONDS = 10
_ROOT = pathlib.Path(__file__).parents[2]
_PROC = pathlib.Path('/proc')
# A measurement counts as disturbed if other programs used more cores.
_QUIET = 0.1


@dataclasses.dataclass(frozen=True)
class Contender:
  """A process that takes part.

  Attributes:
    name: Name in results.
    command: Program and arguments.
    environment: Variables on top of those of this process.
  """

  name: str
  command: list[str]
  environment: dict[str, str]


def define_flags(output: str, seconds: float, library: str) -> None:
  """Defines what the programs of contests have in common.

  Args:
    output: Default directory of the results.
    seconds: Default length of a measurement.
    library: What the interpreter of --torch_python must have.
  """
  from absl import flags  # the Pythons of contenders may lack it

  flags.DEFINE_string('output', output, 'Directory of the results.')
  flags.DEFINE_integer('rounds', 5, 'Measurements of each.', lower_bound=1)
  flags.DEFINE_float('seconds', seconds, 'Least length of a measurement.')
  flags.DEFINE_string(
    'torch_python', sys.executable, f'Interpreter that has {library}.'
  )


def run(
  contenders: Iterable[Contender], rounds: int, seconds: float, seed: int
) -> list[dict]:
  """Measures contenders in turn.

  Args:
    contenders: Processes that take part; all run until the end.
    rounds: Number of measurements of each.
    seconds: Least length of a measurement.
    seed: Seed of the order.

  Returns:
    A row for each thing that a contender measures: 'name', 'what', 'median',
    'min', 'max' and 'rates' in images a second, 'others' (cores that other
    programs used meanwhile), and what the contender says of itself. A contender
    that cannot take part has 'name', 'status' and 'reason'.
  """
  # Ends the processes on the way out.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('terminated'))
  rng, workers = random.Random(seed), []
  with contextlib.ExitStack() as stack:
    for contender in contenders:
      workers.append(stack.enter_context(_Worker(contender)))
      workers[-1].start()
    turns = [(worker, what) for worker in workers for what in worker.rates]
    for number in range(rounds):
      for worker, what in rng.sample(turns, len(turns)):
        print(f'round {number + 1} of {rounds}:', worker.measure(what, seconds))
    return [row for worker in workers for row in worker.rows()]


def serve(create: Callable[[dict], tuple[dict[str, Measure], dict]]) -> None:
  """Answers commands on standard input until it ends.

  Args:
    create: Function that takes the job, which is the JSON of the command line.
      It returns what can be measured, by name, and what to report beside it.
  """
  # What libraries print must not pass for answers: it goes to stderr.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**values) -> None:
    print(json.dumps(values), file=answers, flush=True)

  measures, about = create(json.loads(sys.argv[1]))
  answer(measures=list(measures), about=about)
  for line in sys.stdin:
    command = json.loads(line)
    images, seconds = measures[command['what']](command['seconds'])
    answer(images=images, seconds=seconds)


def disturbance(rows: list[dict]) -> str:
  """Returns a sentence on how far other programs disturbed these rows."""
  known = [x for row in rows for x in row.get('others', []) if x is not None]
  if not known:
    return 'What other programs used meanwhile is not known.'
  disturbed = sum(x > _QUIET for x in known)
  return (
    f'In {disturbed} of {len(known)} measurements other programs used more '
    f'than {_QUIET} cores (at most {max(known):.2f}).'
  )


def versions(rows: list[dict]) -> str:
  """Returns the versions that the contenders of these rows name."""
  pairs = [pair for row in rows for pair in row.get('versions', {}).items()]
  return ', '.join(f'{name} {version}' for name, version in sorted({*pairs}))


class _Worker:
  """A contender's process, as a context.

  Attributes:
    rates: Images a second of each round, for each thing that it measures.
  """

  def __init__(self, contender: Contender):
    self._name = contender.name
    self._failure = {}
    self._log = tempfile.TemporaryFile('w+', errors='replace')  # noqa: SIM115
    self._process = subprocess.Popen(
      contender.command,
      cwd=_ROOT,
      env=os.environ | contender.environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
      # A process group of this session: it is stopped as a whole, and if this
      # program is killed, the system hangs up its stopped groups.
      process_group=0,
    )

  def start(self) -> None:
    """Waits until the process is ready, and stops it."""
    answer = self._answer()
    self._about = answer.get('about', {})
    self.rates = {what: [] for what in answer.get('measures', [])}
    self._others = {what: [] for what in self.rates}
    self._send(signal.SIGSTOP)
    print(self._name, self._failure or 'is ready', flush=True)

  def measure(self, what: str, seconds: float) -> str:
    """Adds a measurement and returns what people read."""
    if self._failure:
      return f'{self._name} has failed'
    before = _seconds_of_others(self._process.pid)
    began = time.perf_counter()
    self._send(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):  # then there is no answer
      command = json.dumps({'what': what, 'seconds': seconds})
      print(command, file=self._process.stdin, flush=True)
    answer = self._answer()
    self._send(signal.SIGSTOP)
    if self._failure:
      return f'{self._name}: {self._failure["reason"]}'
    cores = None
    if before is not None:
      used = _seconds_of_others(self._process.pid) - before
      cores = max(0.0, used / (time.perf_counter() - began))
    self.rates[what].append(answer['images'] / answer['seconds'])
    self._others[what].append(cores)
    return f'{self._name}, {what}: {self.rates[what][-1]:,.0f} images/s'

  def rows(self) -> list[dict]:
    """Returns the rows of `run`."""
    if self._failure:
      return [{'name': self._name, **self._failure}]
    return [
      {
        'name': self._name,
        'what': what,
        'median': statistics.median(rates),
        'min': min(rates),
        'max': max(rates),
        'rates': rates,
        'others': self._others[what],
        **self._about,
      }
      for what, rates in self.rates.items()
    ]

  def __enter__(self) -> '_Worker':
    return self

  def __exit__(self, *_) -> None:
    """Ends the process and all that it has started."""
    self._send(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(_EXIT_SECONDS)
    self._send(signal.SIGKILL)
    self._process.wait()

  def _answer(self) -> dict:
    line = self._process.stdout.readline()
    answer = json.loads(line) if line else self._last_words()
    if 'reason' in answer:
      self._failure = answer
    return answer

  def _last_words(self) -> dict[str, str]:
    self._log.seek(0)
    *_, last = self._log.read().strip().splitlines() or ['no message']
    is_missing = last.startswith('ModuleNotFoundError')
    status = 'not installed' if is_missing else 'failed'
    return {'status': status, 'reason': last}

  def _send(self, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, number)


def _seconds_of_others(group: int) -> float | None:
  """Returns CPU seconds so far of all programs outside a process group.

  Time that the host gave to other machines counts, if it says so. Returns None
  where there is no /proc (Linux).
  """
  if not (_PROC / 'stat').exists():
    return None
  fields = (_PROC / 'stat').read_text().splitlines()[0].split()[1:9]
  user, nice, system, _, _, *interrupts_and_steal = map(int, fields)
  ticks = user + nice + system + sum(interrupts_and_steal)
  for path in _PROC.glob('[0-9]*/stat'):
    # Processes come and go meanwhile.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      # The name, in brackets, may hold spaces.
      fields = path.read_text().rpartition(')')[2].split()
      if int(fields[2]) == group:
        ticks -= sum(map(int, fields[11:15]))
  return ticks / os.sysconf('SC_CLK_TCK')


def why_missing(row: dict) -> str:
  """Returns why a row of `run` has no rates; '' if it has."""
  return f'{row["status"]}: {row["reason"]}' if 'status' in row else ''


def check_python(name: str, path: str) -> None:
  """Raises UserError if a flag that names a Python does not name a program."""
  if not os.access(path, os.X_OK):
    raise errors.UserError(
      f'--{name}={path} is no program; give the path of a Python.'
    )
