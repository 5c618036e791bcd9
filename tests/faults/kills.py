"""Runs that are killed, or asked to stop."""

import collections
import pathlib
import random
import signal
import time
from collections.abc import Iterator

from tests.faults import trial

_KILLS = 25
_STEPS = 300
_LONGEST_DELAY = 0.3  # seconds into a phase
_LONGEST_STOP = 10.0  # seconds from a signal to the end
_PHASES = {
  'prepare': trial.Run.is_preparing,
  'train': trial.Run.is_training,
  'save': trial.Run.is_saving,
  'evaluate': trial.Run.is_evaluating,
}


def storm(workdir: pathlib.Path, devices: int) -> Iterator[trial.Row]:
  """Kills a run in each phase in turn, a random moment into it.

  Args:
    workdir: New directory.
    devices: Number of virtual CPU devices, or of all GPUs.
  """
  environment = {'JAX_NUM_CPU_DEVICES': str(devices)}
  flags = [f'--config.num_devices={devices}']

  def start(name: str) -> trial.Run:
    return trial.Run(workdir / name, _STEPS, flags, environment)

  whole = start('undisturbed')
  whole.finish()
  counts, rng = collections.Counter(), random.Random(devices)
  for phase in _order(rng):
    run = start('killed')
    run.wait_for(_PHASES[phase])
    time.sleep(rng.uniform(0, _LONGEST_DELAY))
    counts[_phase(run)] += 1
    run.kill()
  last = start('killed')
  last.finish()
  case = f'{_KILLS} x SIGKILL in {_STEPS} steps, {devices} device(s)'
  said = ', '.join(f'{count} in {phase}' for phase, count in counts.items())
  left = [path.name for path in (last.workdir / 'checkpoints').iterdir()]
  if not all(name.isdecimal() for name in left):
    yield trial.Row(case, trial.WRONG, f'{said}; left behind: {left}')
    return
  yield trial.compare(case, whole.workdir, last.workdir, said)


def _order(rng: random.Random) -> list[str]:
  """Returns the phases to kill in; data are prepared once, and first."""
  others = [name for name in _PHASES if name != 'prepare']
  first = ['prepare'] * (_KILLS // len(_PHASES))
  rest = [others[i % len(others)] for i in range(_KILLS - len(first))]
  rng.shuffle(rest)
  return first + rest


def _phase(run: trial.Run) -> str:
  """Returns where the run is now; saving goes on beside the others."""
  phases = [name for name in ('save', *_PHASES) if _PHASES[name](run)]
  return phases[0] if phases else 'between'


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
  line, newest = run.last_line(), max(run.saved())
  said = f'exit code {code} after {seconds:.1f} s: "{line}"'
  in_order = code == 128 + number and f'after step {newest},' in line
  if not in_order or seconds > _LONGEST_STOP:
    return trial.Row(case, trial.WRONG, f'{said}; newest: {newest}')
  trial.Run(directory, _STEPS).finish()
  return trial.compare(case, whole.workdir, run.workdir, said)
