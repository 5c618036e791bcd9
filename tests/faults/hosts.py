"""Several processes on this machine that train one run."""

import functools
import itertools
import json
import math
import pathlib
import signal
import socket
import time
from collections.abc import Iterator

from alexnet_jax import multihost
from tests.faults import trial

_STEPS = 30
_LEASE_STEPS = 300
_BEAT_SECONDS = 6  # a little longer than a run takes to look at its lease
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
  yield _one_is_warned(workdir, whole[0].workdir, count)
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
      return trial.Row(case, trial.WRONG, f'rows differ: {a}; {b}')
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
  name = 'late' if is_late else f'killed-{number}'
  case = f'process {number} of {count} killed, then all started again'
  if is_late:
    case += ', while the others see no file of the run'
  start = functools.partial(_start, workdir, name, count, is_late=is_late)
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


def _one_is_warned(
  workdir: pathlib.Path, whole: pathlib.Path, count: int
) -> trial.Row:
  """Returns the row: all save the same step, and lose none."""
  number = count - 1
  case = f'SIGUSR2 to process {number} of {count}, then all started again'
  start = functools.partial(_start, workdir, 'warned', count)
  processes = start()
  processes[0].wait_for(trial.Run.is_training)
  processes[number].send(signal.SIGUSR2)
  codes, seconds = _wait(processes)
  said = f'all ended after {seconds} s with exit codes {codes}'
  if set(codes) != {128 + signal.SIGTERM}:
    return trial.Row(case, trial.WRONG, said)
  return _compare_again(case, whole, processes, start(), said, most=0)


def lease(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Lets another host take a run over and die, and then one that lives.

  Args:
    workdir: New directory.
  """
  whole = trial.Run(workdir / 'whole', _LEASE_STEPS)
  whole.finish()
  run = trial.Run(workdir / 'taken', _LEASE_STEPS)
  run.wait_for(trial.Run.is_training)
  run.send(signal.SIGSTOP)  # its own host sleeps
  path = run.workdir / 'train.lease'
  found = json.loads(path.read_text())
  other = found | {'host': 'elsewhere', 'boot': 'another'}
  path.write_text(json.dumps(other))
  time.sleep(_BEAT_SECONDS)
  run.send(signal.SIGCONT)
  yield _dies_and_goes_on(whole, run)
  yield _is_refused(workdir / 'taken', path, other)


def _dies_and_goes_on(whole: trial.Run, run: trial.Run) -> trial.Row:
  case = 'another host takes over, and dies'
  code = run.wait()
  said = f'exit code {code}: "{run.last_line()}"'
  if code != 1 or 'has taken over' not in said:
    return trial.Row(case, trial.WRONG, said)
  began = time.monotonic()
  again = trial.Run(run.workdir.parent, _LEASE_STEPS)
  again.finish()
  said += f'; the next start ended after {time.monotonic() - began:.0f} s'
  return trial.compare(case, whole.workdir, [run, again], said)


def _is_refused(
  directory: pathlib.Path, path: pathlib.Path, other: dict
) -> trial.Row:
  """Returns the row of a start while another host renews its lease."""
  path.write_text(json.dumps(other))
  run = trial.Run(directory, _LEASE_STEPS)
  for beat in itertools.count(1):
    if not run.is_alive():
      break
    time.sleep(_BEAT_SECONDS)
    path.write_text(json.dumps(other | {'beat': beat}))
  is_refused = run.was_refused('process')
  said = f'exit code {run.wait()}: "{run.last_line()}"'
  outcome = trial.SURVIVED if is_refused else trial.WRONG
  return trial.Row('another host trains in the workdir', outcome, said)


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
  most: int = 2 * trial.SAVE_EVERY,
) -> trial.Row:
  for process in again:
    process.finish()
  return trial.compare(case, whole, [before[0], again[0]], said, most)


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
