"""Several processes on this machine that train one run."""

import functools
import math
import pathlib
import socket
import time
from collections.abc import Iterator

from alexnet_jax import multihost
from tests.faults import trial

_STEPS = 30
_TOLERANCE = 1e-5  # of losses, against one process
# Seconds after which the others have ended.
_LONGEST = multihost.HEARTBEAT_SECONDS + 10
# Seconds after which the others have ended with an error that one has raised.
_LONGEST_AFTER_ERROR = 20
_FAULT = 'a fault of one process'
# main.py, whose 20th batch is a fault.
_RAISES = f"""
import itertools, runpy
from alexnet_jax import parallel
put_batch, numbers = parallel.ManyDevices.put_batch, itertools.count(1)
def put_or_raise(*args):
  if next(numbers) == 20:
    raise RuntimeError('{_FAULT}')
  return put_batch(*args)
parallel.ManyDevices.put_batch = put_or_raise
runpy.run_path('main.py', run_name='__main__')
"""
# At the recipe's rate, rounding errors grow a hundredfold in fifteen steps, on
# several devices of one process as well.
_RATE = '--config.optimizer.learning_rate=0.0003'


def several(workdir: pathlib.Path, count: int) -> Iterator[trial.Row]:
  """Compares several processes with one; then does to one what may happen.

  Args:
    workdir: New directory.
    count: Number of processes, each with one device.
  """
  one = trial.Run(workdir / 'one', _STEPS, ['--config.num_devices=1', _RATE])
  one.finish()
  whole = _start(workdir, 'whole', count)
  for process in whole:
    process.finish()
  yield _compare(one.workdir, whole[0].workdir, count)
  yield _one_dies(workdir, whole[0].workdir, count, number=count - 1)
  yield _one_dies(workdir, whole[0].workdir, count, number=0)
  yield _one_raises(workdir, whole[0].workdir, count)
  yield _one_dies(workdir, whole[0].workdir, count, number=0, is_late=True)


def _compare(one: pathlib.Path, whole: pathlib.Path, count: int) -> trial.Row:
  """Returns the row: numbers to `_TOLERANCE`, counts and errors the same."""
  case = f'{count} processes instead of one'
  worst, rows = 0.0, (trial.rows(one), trial.rows(whole))
  for a, b in zip(*rows, strict=True):
    for name in {'loss', 'gradient_norm'} & a.keys():
      before, after = a.pop(name), b.pop(name)
      worst = max(worst, abs(before - after) / before)
    if a != b:
      return trial.Row(case, trial.WRONG, f'{a}; {b}')
  outcome = trial.SURVIVED if worst < _TOLERANCE else trial.WRONG
  said = (
    f'losses and norms of {len(rows[0])} rows differ by {worst:.1e} at most'
  )
  return trial.Row(case, outcome, f'{said}, all else not at all')


def _one_dies(
  workdir: pathlib.Path,
  whole: pathlib.Path,
  count: int,
  number: int,
  *,
  is_late: bool = False,
) -> trial.Row:
  case = f'process {number} of {count} killed, then all started again'
  if is_late:
    case += ', while the others see no file of the run'
  start = functools.partial(
    _start, workdir, f'killed-{number}{is_late}', count, is_late=is_late
  )
  processes = start()
  processes[0].wait_for(trial.Run.saved)
  processes[number].kill()
  codes, seconds = _wait(processes)
  said = f'all ended after {seconds} s with exit codes {codes}'
  if 0 in codes or seconds > _LONGEST:
    return trial.Row(case, trial.WRONG, said)
  return _compare_again(case, whole, processes, start(), said)


def _one_raises(
  workdir: pathlib.Path, whole: pathlib.Path, count: int
) -> trial.Row:
  """Returns the row: all end soon, and each log ends with the first error."""
  number = count - 1
  case = f'process {number} of {count} raises, then all started again'
  start = functools.partial(_start, workdir, 'raised', count)
  processes = start(raises=number)
  processes[number].wait_for(lambda run: run.has_said(_FAULT))
  codes, seconds = _wait(processes)
  said = f'all ended after {seconds} s with exit codes {codes}'
  ends = [process.last_line() for process in processes]
  if 0 in codes or seconds > _LONGEST_AFTER_ERROR:
    return trial.Row(case, trial.WRONG, f'{said}, not sooner')
  if not all(_FAULT in end for end in ends):
    return trial.Row(case, trial.WRONG, f'{said}; last lines: {ends}')
  said += f'; "{ends[0]}"'
  return _compare_again(case, whole, processes, start(), said)


def _wait(processes: list[trial.Run]) -> tuple[list[int], int]:
  """Waits for all; returns their exit codes and the seconds that it took."""
  began = time.monotonic()
  codes = [process.wait() for process in processes]
  return codes, math.ceil(time.monotonic() - began)


def _compare_again(
  case: str,
  whole: pathlib.Path,
  before: list[trial.Run],
  again: list[trial.Run],
  said: str,
) -> trial.Row:
  for process in again:
    process.finish()
  return trial.compare(case, whole, [before[0], again[0]], said)


def _start(
  workdir: pathlib.Path,
  name: str,
  count: int,
  raises: int | None = None,
  *,
  is_late: bool = False,
) -> list[trial.Run]:
  """Starts all processes of a run.

  Args:
    workdir: Directory of the case.
    name: Name of the run.
    count: Number of processes.
    raises: Number of the process that raises an error, None for none.
    is_late: Whether what process 0 writes never arrives at the others, as on a
      network's file system that takes its time. Each has a workdir of its own.
  """
  flags = [
    f'--config.data.dir={workdir}/one/data',
    _RATE,
    f'--coordinator=localhost:{free_port()}',
    f'--num_processes={count}',
  ]

  def start(number: int) -> trial.Run:
    own = [f'--process_id={number}']
    if is_late and number:
      own.append(f'--workdir={workdir}/{name}-of-{number}')
    program = ('-c', _RAISES) if number == raises else ('main.py',)
    environment = {'JAX_NUM_CPU_DEVICES': '1'}
    directory = workdir / name
    return trial.Run(directory, _STEPS, [*flags, *own], environment, program)

  return [start(number) for number in range(count)]


def free_port() -> int:
  """Returns a port that nobody listens on."""
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]
