"""Runs that are killed, or asked to stop."""

import collections
import pathlib
import random
import signal
import time
from collections.abc import Iterator

from experiments.faults import trial

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
  """SIGKILL in turn in each phase, a random moment into it; then the end.

  Args:
    workdir: a new directory.
    devices: virtual ones of the CPU, or all that there are.
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
  """Data are prepared but once, so that phase comes first."""
  others = [name for name in _PHASES if name != 'prepare']
  first = ['prepare'] * (_KILLS // len(_PHASES))
  rest = [others[i % len(others)] for i in range(_KILLS - len(first))]
  rng.shuffle(rest)
  return first + rest


def _phase(run: trial.Run) -> str:
  """Where it is now; saving goes on beside the others."""
  phases = [name for name in ('save', *_PHASES) if _PHASES[name](run)]
  return phases[0] if phases else 'between'


def signals(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """SIGTERM and SIGINT while steps are made and in an evaluation; two at once.

  Args:
    workdir: a new directory.
  """
  whole = trial.Run(workdir / 'undisturbed', _STEPS)
  whole.finish()
  for number in (signal.SIGTERM, signal.SIGINT):
    for phase in ('train', 'save', 'evaluate'):
      case = f'{number.name} in {phase}'
      directory = workdir / case.replace(' ', '-')
      run = trial.Run(directory, _STEPS)
      run.wait_for(_PHASES[phase])
      yield _stopped(case, run, number, whole, directory)
  yield _twice(workdir / 'twice', whole)


def _stopped(
  case: str,
  run: trial.Run,
  number: signal.Signals,
  whole: trial.Run,
  directory: pathlib.Path,
) -> trial.Row:
  """In order, at the step that was made; then it goes on."""
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


def _twice(directory: pathlib.Path, whole: trial.Run) -> trial.Row:
  """The second ends it where it is."""
  run = trial.Run(directory, _STEPS)
  run.wait_for(_PHASES['evaluate'])
  run.send(signal.SIGTERM)
  while run.notes_signals():
    pass
  run.send(signal.SIGTERM)
  code = run.wait()
  case, said = 'SIGTERM twice', f'exit code {code}'
  if code != -signal.SIGTERM:
    return trial.Row(case, trial.WRONG, said)
  trial.Run(directory, _STEPS).finish()
  return trial.compare(case, whole.workdir, run.workdir, said)
