"""Several processes on this machine that train one run."""

import math
import pathlib
import socket
import time
from collections.abc import Iterator

from experiments.faults import trial

_STEPS = 40
_TOLERANCE = 1e-5  # of losses, against one process
_LONGEST = 90.0  # seconds until the others have noticed
# In proportion to the batch. At the recipe's own, as after more steps, rounding
# errors have grown a thousandfold: devices of one process part as far.
_RATE = '--config.optimizer.learning_rate=0.00125'


def several(workdir: pathlib.Path, count: int) -> Iterator[trial.Row]:
  """Against one process; then one of them dies, and all start again.

  Args:
    workdir: a new directory.
    count: processes, a device each.
  """
  one = trial.Run(workdir / 'one', _STEPS, ['--config.num_devices=1', _RATE])
  one.finish()
  whole = _start(workdir, 'whole', count)
  for process in whole:
    process.finish()
  pairs = zip(
    trial.rows(one.workdir), trial.rows(whole[0].workdir), strict=True
  )
  worst = max(abs(a['loss'] - b['loss']) / a['loss'] for a, b in pairs)
  outcome = trial.SURVIVED if worst < _TOLERANCE else trial.WRONG
  case = f'{count} processes instead of one'
  yield trial.Row(case, outcome, f'losses differ by {worst:.1e} at most')
  yield _one_dies(workdir, whole[0].workdir, count)


def _one_dies(
  workdir: pathlib.Path, whole: pathlib.Path, count: int
) -> trial.Row:
  case = f'one of {count} processes killed, then all started again'
  first, *others, last = _start(workdir, 'killed', count)
  first.wait_for(lambda run: any(run.workdir.glob('checkpoints/[0-9]*')))
  last.kill()
  began = time.monotonic()
  codes = [process.wait() for process in (first, *others)]
  seconds = math.ceil(time.monotonic() - began)
  said = f'the others ended after {seconds} s with exit codes {codes}'
  if 0 in codes or seconds > _LONGEST:
    return trial.Row(case, trial.WRONG, said)
  for process in _start(workdir, 'killed', count):
    process.finish()
  return trial.compare(case, whole, first.workdir, said)


def _start(workdir: pathlib.Path, name: str, count: int) -> list[trial.Run]:
  flags = [
    f'--config.data.dir={workdir}/one/data',
    _RATE,
    f'--coordinator=localhost:{_free_port()}',
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


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]
