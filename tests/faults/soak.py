"""Memory, speed and open files of a run that trains and evaluates for long.

The memory in use is what the program has asked the allocator for and not given
back. A line through it may rise by 2% over a case of an hour, and the second
half may be slower by 5%. A shorter case is less certain: these are divided by
the root of its hours. What is resident has what the allocator keeps for later
as well, which with a hundred threads comes and goes by tens of MiB: the last
ninth after the warm-up may have a quarter more than the first. Each checkpoint
leaves some 40 KB, whatever the network's size: tensorstore 0.1.86 keeps 273
bytes of each `Spec.to_json()`, which orbax calls several times an array.

    python -m tests.faults.soak FILE FLAGS

runs main.py and keeps writing its memory in use to a file (glibc).
"""

import ctypes
import os
import pathlib
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from alexnet_jax.workdir import metrics_file
from tests.faults import trial

_EVERY = 5.0  # seconds between samples
_FEWEST = 10  # samples that make a line
_WARM_UP = 0.1  # of the time: caches fill
_MOST_IN_USE = 0.02  # growth of all over an hour
_MOST_RESIDENT = 1.25  # of the end over the start
_MOST_SLOWING = 0.05  # of the second half of an hour against the first
# Once an epoch, as recipes have it.
_FLAGS = (
  '--config.eval_every_epochs=1',
  '--config.eval_every_steps=0',
  '--config.checkpoint_every_epochs=1',
  '--config.checkpoint_every_steps=0',
)
# Python's own allocator, and what glibc keeps ready for each of some hundred
# threads, would pass for memory in use.
_MALLOC = {
  'PYTHONMALLOC': 'malloc',
  'GLIBC_TUNABLES': 'glibc.malloc.tcache_count=0',
}


def case(minutes: float) -> str:
  """Returns the name of the row."""
  return f'{minutes:g} minutes of training and evaluation'


def soak(workdir: pathlib.Path, minutes: float) -> Iterator[trial.Row]:
  """Trains, evaluates and saves for long; samples go to samples.csv.

  Args:
    workdir: New directory.
    minutes: Length of the case.
  """
  if not hasattr(ctypes.CDLL(None), 'mallinfo2'):
    yield trial.Row(
      case(minutes), trial.NOT_RUN, 'it takes glibc, 2.33 or newer'
    )
    return
  in_use = workdir / 'in_use.txt'
  workdir.mkdir()
  run = trial.Run(
    workdir / 'soak',
    10**7,
    _FLAGS,
    _MALLOC,
    program=('-m', 'tests.faults.soak', str(in_use)),
  )
  run.wait_for(trial.Run.is_training)
  samples = []  # (seconds, steps, bytes in use, files, bytes, CPU seconds)
  began = time.monotonic()
  while (seconds := time.monotonic() - began) < 60 * minutes and run.is_alive():
    if logged := metrics_file.parse(run.workdir / 'metrics.jsonl'):
      used = int(in_use.read_text())
      samples.append((seconds, logged[-1]['step'], used, *run.usage()))
    time.sleep(_EVERY)
  run.send(signal.SIGTERM)
  if run.wait() != 128 + signal.SIGTERM:
    said = f'ended early: "{run.last_line()}"'
    yield trial.Row(case(minutes), trial.WRONG, said)
    return
  if len(samples) < _FEWEST:
    said = f'too short: {len(samples)} samples'
    yield trial.Row(case(minutes), trial.WRONG, said)
    return
  samples = np.array(samples)
  header = 'seconds,steps,in_use,files,resident,cpu_seconds'
  path = workdir / 'samples.csv'
  np.savetxt(path, samples, '%.10g', ',', header=header, comments='')
  yield trial.Row(case(minutes), *_judge(samples))


def _judge(samples: np.ndarray) -> tuple[str, str]:
  """Returns an outcome, and the slopes of lines through what follows warm-up.

  The module's first lines say how memory is judged.

  Speed is told by the clock and by the process's own CPU time, which other
  programs disturb less, and judged by the latter.
  """
  late = samples[samples[:, 0] > _WARM_UP * samples[-1, 0]]
  seconds, steps, in_use, files, resident, cpu = late.T

  def growth(values: np.ndarray) -> float:
    return np.polyfit(seconds / 3600, values, 1)[0]

  hours = np.ptp(seconds) / 3600
  most_in_use = _MOST_IN_USE * in_use.mean() / hours**0.5
  first, *_, last = np.array_split(resident, 9)
  by_clock, by_cpu = (_second_half(steps, time) for time in (seconds, cpu))
  fine = (
    growth(in_use) * hours < most_in_use
    and last.mean() < _MOST_RESIDENT * first.mean()
    and growth(files) * hours < 1
    and by_cpu > 1 - _MOST_SLOWING / hours**0.5
  )
  said = (
    f'{steps[-1]:.0f} steps; {in_use.mean() / 2**20:.0f} MiB in use, '
    f'{growth(in_use) * hours / 2**20:+.1f} over the time, of '
    f'{most_in_use / 2**20:.1f} at most; {first.mean() / 2**20:.0f} resident '
    f'at the start, {last.mean() / 2**20:.0f} at the end; {files.mean():.0f} '
    f'open files, {growth(files) * hours:+.2f} over the time; steps of the '
    f'second half over the first: {by_clock:.3f} a second, {by_cpu:.3f} a CPU '
    'second'
  )
  return trial.SURVIVED if fine else trial.WRONG, said


def _second_half(steps: np.ndarray, time: np.ndarray) -> float:
  """Returns the speed of the second half over that of the first."""
  middle = len(steps) // 2
  first, second = slice(None, middle + 1), slice(middle, None)
  speeds = [
    np.ptp(steps[half]) / np.ptp(time[half]) for half in (first, second)
  ]
  return speeds[1] / speeds[0]


class _Mallinfo(ctypes.Structure):
  """The fields of `struct mallinfo2` of malloc.h.

  Bytes in use are `hblkhd`, in blocks with a mapping of their own, and
  `uordblks`, in all others.
  """

  _fields_ = [
    (name, ctypes.c_size_t)
    for name in (
      *('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd'),
      *('usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'),
    )
  ]


def _watch(path: pathlib.Path) -> None:
  """Writes the memory in use once a second."""
  mallinfo = ctypes.CDLL(None).mallinfo2
  mallinfo.restype = _Mallinfo
  new = path.with_suffix('.new')
  while True:
    info = mallinfo()
    new.write_text(str(info.uordblks + info.hblkhd))
    os.replace(new, path)
    time.sleep(1)


if __name__ == '__main__':
  output = pathlib.Path(sys.argv.pop(1))
  threading.Thread(target=_watch, args=(output,), daemon=True).start()
  runpy.run_path('main.py', run_name='__main__')
