"""Several processes on this machine that train one run."""

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
# At the recipe's rate, rounding errors grow a hundredfold in fifteen steps, on
# several devices of one process as well.
_RATE = '--config.optimizer.learning_rate=0.0003'


def several(workdir: pathlib.Path, count: int) -> Iterator[trial.Row]:
  """Compares several processes with one; then kills one and starts all again.

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
  workdir: pathlib.Path, whole: pathlib.Path, count: int, number: int
) -> trial.Row:
  case = f'process {number} of {count} killed, then all started again'
  name = f'killed-{number}'
  processes = _start(workdir, name, count)
  processes[0].wait_for(trial.Run.saved)
  processes.pop(number).kill()
  began = time.monotonic()
  codes = [process.wait() for process in processes]
  seconds = math.ceil(time.monotonic() - began)
  said = f'the others ended after {seconds} s with exit codes {codes}'
  if 0 in codes or seconds > _LONGEST:
    return trial.Row(case, trial.WRONG, said)
  again = _start(workdir, name, count)
  for process in again:
    process.finish()
  if again[0].has_said(f'step 0 of {_STEPS}'):
    return trial.Row(case, trial.WRONG, f'{said}; started from step 0')
  return trial.compare(case, whole, again[0].workdir, said)


def _start(workdir: pathlib.Path, name: str, count: int) -> list[trial.Run]:
  flags = [
    f'--config.data.dir={workdir}/one/data',
    _RATE,
    f'--coordinator=localhost:{free_port()}',
    f'--num_processes={count}',
  ]
  return [
    trial.Run(
      workdir / name,
      _STEPS,
      [*flags, f'--process_id={number}'],
      {'JAX_NUM_CPU_DEVICES': '1'},
    )
    for number in range(count)
  ]


def free_port() -> int:
  """Returns a port that nobody listens on."""
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]
