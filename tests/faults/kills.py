"""Runs that are killed, or asked to stop."""

import collections
import math
import pathlib
import random
import signal
import time
from collections.abc import Iterator

from tests.faults import trial

_STEPS = 300
_LONGEST_DELAY = 0.3  # seconds into a phase
_LONGEST_STOP = 10.0  # seconds from a signal to the end
_PHASES = {
  'prepare': trial.Run.is_preparing,
  'train': trial.Run.is_training,
  'save': trial.Run.is_saving,
  'evaluate': trial.Run.is_evaluating,
  'late': lambda run: run.last_step() >= 2 * _STEPS / 3,
}


def storm(
  workdir: pathlib.Path, devices: int, kills: int
) -> Iterator[trial.Row]:
  """Kills a run in each phase in turn, a random moment into it.

  Args:
    workdir: New directory.
    devices: Number of virtual CPU devices, or of all GPUs.
    kills: Number of kills, the last one at two thirds of all steps.
  """
  environment = {'JAX_NUM_CPU_DEVICES': str(devices)}
  flags = [f'--config.num_devices={devices}']

  def start(name: str) -> trial.Run:
    return trial.Run(workdir / name, _STEPS, flags, environment)

  whole = start('undisturbed')
  whole.finish()
  counts, rng, runs = collections.Counter(), random.Random(devices), []
  for phase in [*_order(kills - 1, rng), 'late']:
    runs.append(run := start('killed'))
    run.wait_for(_PHASES[phase])
    time.sleep(rng.uniform(0, _LONGEST_DELAY))
    counts[_phase(run)] += 1
    run.kill()
  runs.append(last := start('killed'))
  last.finish()
  case = f'{kills} x SIGKILL in {_STEPS} steps, {devices} device(s)'
  said = ', '.join(f'{count} in {phase}' for phase, count in counts.items())
  left = [path.name for path in (last.workdir / 'checkpoints').iterdir()]
  if not all(name.isdecimal() for name in left):
    yield trial.Row(case, trial.WRONG, f'{said}; left behind: {left}')
    return
  yield trial.compare(case, whole.workdir, runs, said)


def _order(kills: int, rng: random.Random) -> list[str]:
  """Returns the phases to kill in; data are prepared once, and first."""
  first = ['prepare'] * math.ceil(kills / 4)
  others = ('train', 'save', 'evaluate')
  rest = [others[i % len(others)] for i in range(kills - len(first))]
  rng.shuffle(rest)
  return first + rest


def _phase(run: trial.Run) -> str:
  """Returns where the run is now; saving goes on beside the others."""
  names = ('save', 'prepare', 'train', 'evaluate')
  return next((name for name in names if _PHASES[name](run)), 'between')


def signals(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Sends SIGTERM and SIGINT in each phase of training, then goes on.

  Args:
    workdir: New directory.
  """
  whole = trial.Run(workdir / 'undisturbed', _STEPS)
  whole.finish()
  for number in (signal.SIGTERM, signal.SIGINT):
    for phase in ('train', 'save', 'evaluate'):
      yield _stopped(workdir, number, phase, whole)
  yield _stopped(workdir, signal.SIGUSR1, 'train', whole)
  yield _walltimes(workdir, whole)


def _stopped(
  workdir: pathlib.Path, number: signal.Signals, phase: str, whole: trial.Run
) -> trial.Row:
  """Returns the row of a run that must stop at the step that it has made."""
  case = f'{number.name} in {phase}'
  directory = workdir / case.replace(' ', '-')
  run = trial.Run(directory, _STEPS)
  run.wait_for(_PHASES[phase])
  began = time.monotonic()
  run.send(number)
  code, seconds = run.wait(), time.monotonic() - began
  line, newest = run.last_line(), max(run.saved(), default=0)
  said = f'exit code {code} after {seconds:.1f} s: "{line}"'
  in_order = code == 128 + number and f'after step {newest},' in line
  if not in_order or seconds > _LONGEST_STOP:
    return trial.Row(case, trial.WRONG, f'{said}; newest: {newest}')
  again = trial.Run(directory, _STEPS)
  again.finish()
  return trial.compare(case, whole.workdir, [run, again], said, most=0)


def _walltimes(workdir: pathlib.Path, whole: trial.Run) -> trial.Row:
  """Returns the row of jobs in a chain, each with SIGUSR2 before its walltime.

  That is what `sbatch --signal=USR2@10` does.
  """
  case = f'SIGUSR2, and SIGKILL {_LONGEST_STOP:.0f} s later, job after job'
  runs, codes = [], []
  for _ in range(2):
    runs.append(run := trial.Run(workdir / 'jobs', _STEPS))
    run.wait_for(lambda run: run.last_step() >= run.found + _STEPS / 4)
    run.send(signal.SIGUSR2)
    codes.append(run.wait(_LONGEST_STOP))
  runs.append(last := trial.Run(workdir / 'jobs', _STEPS))
  last.finish()
  said = f'exit codes {codes}, then to the end'
  if set(codes) != {128 + signal.SIGUSR2}:
    return trial.Row(case, trial.WRONG, said)
  return trial.compare(case, whole.workdir, runs, said, most=0)
