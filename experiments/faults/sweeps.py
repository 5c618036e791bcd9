"""A sweep whose runner dies."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from experiments.faults import trial

_KILLS = 3
_SWEEP = (
  '-m',
  'experiments.ablation_lrn',
  '--data=shapes',
  '--seeds=0,1',
  '--set=train_steps=40',
  '--set=batch_size=16',
  '--set=log_every_steps=5',
  '--set=checkpoint_every_steps=5',
)


def storm(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """SIGKILL at random, to the runner or to all that it has started.

  Args:
    workdir: a new directory.
  """
  whole, killed = workdir / 'undisturbed', workdir / 'killed'
  began = time.monotonic()
  _finish(whole)
  longest = (time.monotonic() - began) / _KILLS
  rng, said = random.Random(0), []
  for number in range(_KILLS):
    process = _start(killed)
    seconds = rng.uniform(0, longest)
    time.sleep(seconds)
    if number % 2:
      process.kill()
    else:
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    what = 'the runner' if number % 2 else 'it and its run'
    said.append(f'{what} after {seconds:.0f} s')
  _finish(killed)
  case = f'{_KILLS} x SIGKILL to a sweep of 4 runs'
  tables = [(path / 'results.md').read_bytes() for path in (whole, killed)]
  fine = tables[0] == tables[1]
  outcome = trial.SURVIVED if fine else trial.WRONG
  same = 'the same' if fine else 'another'
  yield trial.Row(case, outcome, f'{", ".join(said)}; {same} results.md')


def _start(workdir: pathlib.Path) -> subprocess.Popen:
  workdir.mkdir(parents=True, exist_ok=True)
  data = f'--set=data.dir={workdir}/data'
  with (workdir / 'log.txt').open('a') as log:
    return subprocess.Popen(
      [sys.executable, *_SWEEP, f'--workdir={workdir}', data],
      cwd=trial.ROOT,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def _finish(workdir: pathlib.Path) -> None:
  """Raises CalledProcessError where it fails."""
  process = _start(workdir)
  if process.wait():
    raise subprocess.CalledProcessError(process.returncode, process.args)
