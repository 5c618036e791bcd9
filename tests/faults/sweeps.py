"""A sweep whose runner is killed."""

import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from alexnet_jax import errors
from alexnet_jax.workdir import files, metrics_file
from tests.faults import trial

_KILLS = 3
_SAVE_EVERY = 5  # steps
_SWEEP = (
  '-m',
  'experiments.ablation_lrn',
  '--data=shapes',
  '--seeds=0,1',
  '--set=train_steps=40',
  '--set=batch_size=16',
  '--set=log_every_steps=1',
  f'--set=checkpoint_every_steps={_SAVE_EVERY}',
)

# Starts so far, step of the newest checkpoint, step of the last log, by run.
Left = dict[pathlib.Path, tuple[int, int, int]]


def storm(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Kills the runner, or all that it has started, while steps are made.

  Args:
    workdir: New directory.
  """
  whole, killed = workdir / 'undisturbed', workdir / 'killed'
  _finish(whole)
  rng, left = random.Random(0), []
  for number in range(_KILLS):
    process = _start(killed)
    _wait_for_runs(killed, process, number + 1)
    time.sleep(rng.uniform(0, 0.3))
    if number % 2:
      process.kill()  # its run goes on
    else:
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left.append(_left(killed))
  _finish(killed)
  yield _compare(whole, killed, left)


def _wait_for_runs(
  sweep: pathlib.Path, process: subprocess.Popen, count: int
) -> None:
  """Waits until so many runs have a checkpoint.

  Raises:
    UserError: If the sweep ends before.
  """
  runs = []
  while len(runs) < count:
    if process.poll() is not None:
      raise errors.UserError(f'{sweep} ended with {len(runs)} runs.')
    time.sleep(0.02)
    paths = sweep.glob('*/*/config.json')
    runs = [path for path in paths if files.newest_step(path.parent)]


def _left(sweep: pathlib.Path) -> Left:
  """Returns what a kill has left of each run of a sweep."""
  left = {}
  for path in sweep.glob('*/*/config.json'):
    rows = metrics_file.parse(path.with_name('metrics.jsonl'))
    reached = max((row['step'] for row in rows), default=0)
    found = files.newest_step(path.parent) or 0
    left[path.parent] = (len(_starts(path.parent)), found, reached)
  return left


def _starts(run: pathlib.Path) -> list[int]:
  return trial.starts((run / 'log.txt').read_text())


def _made_again(left: list[Left]) -> list[int]:
  """Returns the steps that the starts after each kill have made again.

  Raises:
    UserError: If one started elsewhere than from the newest checkpoint.
  """
  again = [0]
  for run, (count, found, reached) in itertools.chain(
    *(x.items() for x in left)
  ):
    # A run that was complete has not started again.
    for first in _starts(run)[count:][:1]:
      if first != found:
        raise errors.UserError(
          f'{run.name} started from step {first}, not {found}'
        )
      again.append(max(0, reached - first))
  return again


def _compare(
  whole: pathlib.Path,
  killed: pathlib.Path,
  left: list[Left],
) -> trial.Row:
  """Returns the row: the same table, all runs bit for bit, few steps twice."""
  texts = [(path / 'results.md').read_bytes() for path in (whole, killed)]
  differs = ['results.md'] * (texts[0] != texts[1])
  runs = [path.parent for path in whole.rglob('config.json')]
  for run in runs:
    other = killed / run.relative_to(whole)
    differs += [f'{run.name}: {x}' for x in trial.differences(run, other)]
  again = _made_again(left)
  if max(again) > 2 * _SAVE_EVERY:
    differs.append(f'a start made {max(again)} steps again')
  case = f'{_KILLS} x SIGKILL to a sweep of {len(runs)} runs'
  if differs:
    return trial.Row(case, trial.WRONG, f'differs: {", ".join(differs)}')
  told = f'the same results.md; {sum(again)} steps made again'
  return trial.Row(case, trial.SURVIVED, told)


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
  """Runs the sweep to its end; raises CalledProcessError if it fails."""
  process = _start(workdir)
  if process.wait():
    raise subprocess.CalledProcessError(process.returncode, process.args)
