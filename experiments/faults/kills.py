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
    if not run.wait_for(_PHASES[phase]):
      run.finish()  # it was faster than the storm
      break
    time.sleep(rng.uniform(0, _LONGEST_DELAY))
    run.kill()
    counts[phase] += 1
  last = start('killed')
  last.finish()
  case = f'{_KILLS} x SIGKILL in {_STEPS} steps, {devices} device(s)'
  said = ', '.join(f'{count} in {phase}' for phase, count in counts.items())
  if counts.total() < _KILLS:
    yield trial.Row(case, trial.WRONG, f'it ended before: {said}')
    return
  yield trial.compare(case, whole.workdir, last.workdir, said)


def _order(rng: random.Random) -> list[str]:
  """Data are prepared but once, so that phase comes first."""
  others = [name for name in _PHASES if name != 'prepare']
  first = ['prepare'] * (_KILLS // len(_PHASES))
  rest = [others[i % len(others)] for i in range(_KILLS - len(first))]
  rng.shuffle(rest)
  return first + rest


def signals(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """SIGTERM and SIGINT while steps are made and in an evaluation; two at once.

  Args:
    workdir: a new directory.
  """
  whole = trial.Run(workdir / 'undisturbed', _STEPS)
  whole.finish()
  for number in (signal.SIGTERM, signal.SIGINT):
    for phase in ('train', 'evaluate'):
      name = f'{number.name} in {phase}'
      directory = workdir / name.replace(' ', '-')
      run = trial.Run(directory, _STEPS)
      run.wait_for(_PHASES[phase])
      seconds, code = _stop(run, number)
      line, newest = run.last_line(), max(run.saved())
      said = f'exit code {code} after {seconds:.1f} s: "{line}"'
      if code != 128 + number or f'after step {newest},' not in line:
        yield trial.Row(name, trial.WRONG, f'{said}; newest: {newest}')
        continue
      trial.Run(directory, _STEPS).finish()
      yield trial.compare(name, whole.workdir, run.workdir, said)
  yield _twice(workdir / 'twice')


def _stop(run: trial.Run, number: int) -> tuple[float, int]:
  began = time.monotonic()
  run.send(number)
  code = run.wait()
  return time.monotonic() - began, code


def _twice(directory: pathlib.Path) -> trial.Row:
  run = trial.Run(directory, _STEPS)
  run.wait_for(_PHASES['evaluate'])
  run.send(signal.SIGTERM)
  time.sleep(0.001)
  run.send(signal.SIGTERM)
  code = run.wait()
  # A process that had no time to stop in order was ended by the signal.
  outcome = trial.SURVIVED if code in (-15, 143) else trial.WRONG
  return trial.Row('SIGTERM twice', outcome, f'exit code {code}')
