"""A run that is killed again and again ends as the one that nobody touched.

    python -m experiments.kill_storm --workdir=runs/storm
    python -m experiments.kill_storm --workdir=runs/storm4 --devices=4

Trains the quickstart network for some hundred steps, with frequent logs,
evaluations and checkpoints, once undisturbed. Then starts the same command with
nothing prepared, kills it (SIGKILL) in turn while it prepares its data, trains,
writes a checkpoint and evaluates, a random moment into each, and starts it
again. Prints one line of JSON, and fails unless the last checkpoints' arrays
and metrics.jsonl (less `timing`) are the same bit for bit. On CPUs, --devices
are virtual.
"""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags, logging

from alexnet_jax import checkpoint, command_line, errors, train_state
from alexnet_jax import workdir as workdir_lib

_WORKDIR = flags.DEFINE_string('workdir', None, 'Must not exist.')
_KILLS = flags.DEFINE_integer('kills', 25, 'How often.')
_STEPS = flags.DEFINE_integer('steps', 300, 'Of the whole run.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'How many.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')
_ROOT = pathlib.Path(__file__).parents[1]
_LONGEST_DELAY = 0.3  # seconds into a phase
_GIVE_UP = 300.0  # seconds without reaching it
_FLAGS = (
  '--config=configs/quickstart.py',
  '--config.batch_size=16',
  '--config.log_every_steps=5',
  '--config.checkpoint_every_steps=15',
  '--config.eval_every_steps=30',
)


class Run:
  """A process of main.py, and what it is doing.

  Args:
    directory: of its data and its workdir.
  """

  def __init__(self, directory: pathlib.Path):
    self.workdir = directory / 'run'
    self._log = directory / 'log.txt'
    self._data = directory / 'data'
    directory.mkdir(exist_ok=True)
    flags_ = (
      *_FLAGS,
      f'--workdir={self.workdir}',
      f'--config.data.dir={self._data}',
      f'--config.train_steps={_STEPS.value}',
      f'--config.num_devices={_DEVICES.value}',
    )
    with self._log.open('w') as log:
      self._process = subprocess.Popen(
        [sys.executable, 'main.py', *flags_],
        cwd=_ROOT,
        env=os.environ | {'JAX_NUM_CPU_DEVICES': str(_DEVICES.value)},
        stdout=log,
        stderr=subprocess.STDOUT,
      )

  def is_preparing(self) -> bool:
    """Whether its data set is half there."""
    return any(self._data.glob('*.partial'))

  def is_training(self) -> bool:
    """Whether it makes steps."""
    return self._last_line().startswith('train')

  def is_saving(self) -> bool:
    """Whether orbax has not yet given a checkpoint its name."""
    return any((self.workdir / 'checkpoints').glob('*tmp*'))

  def is_evaluating(self) -> bool:
    """Whether that is what its progress bar is about."""
    return self._last_line().startswith('evaluate')

  def _last_line(self) -> str:
    text = self._log.read_text(errors='replace')[-500:]
    lines = text.replace('\r', '\n').replace('\x1b[A', '\n').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')

  def kill(self) -> None:
    """SIGKILL."""
    self._process.send_signal(signal.SIGKILL)
    self._process.wait()

  def is_alive(self) -> bool:
    """Whether it has not ended."""
    return self._process.poll() is None

  def finish(self) -> None:
    """Waits for its end.

    Raises:
      UserError: where that was a failure.
    """
    if self._process.wait():
      raise errors.UserError(f'training failed, see {self._log}.')


_PHASES: dict[str, Callable[[Run], bool]] = {
  'prepare': Run.is_preparing,
  'train': Run.is_training,
  'save': Run.is_saving,
  'evaluate': Run.is_evaluating,
}


def _storm(directory: pathlib.Path) -> dict[str, int]:
  """Kills, then lets it end; how often it was killed, by phase."""
  rng = random.Random(_SEED.value)
  counts = collections.Counter()
  wanted = _order(rng)
  while wanted:
    run = Run(directory)
    counts[_kill_in(run, wanted.pop(0), rng)] += 1
  Run(directory).finish()
  return dict(counts)


def _order(rng: random.Random) -> list[str]:
  """Phases to kill in; data are prepared but once, so that one comes first."""
  others = [name for name in _PHASES if name != 'prepare']
  first = ['prepare'] * (_KILLS.value // len(_PHASES))
  rest = [others[i % len(others)] for i in range(_KILLS.value - len(first))]
  rng.shuffle(rest)
  return first + rest


def _kill_in(run: Run, phase: str, rng: random.Random) -> str:
  """The phase, or 'ended' for a run that was faster."""
  began = time.monotonic()
  while not _PHASES[phase](run):
    if not run.is_alive():
      run.finish()
      return 'ended'
    if time.monotonic() - began > _GIVE_UP:
      raise errors.UserError(f'{run.workdir}: never came to {phase}.')
    time.sleep(0.002)
  time.sleep(rng.uniform(0, _LONGEST_DELAY))
  run.kill()
  return phase


def _differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
  """What two runs do not have in common."""
  states, rows = zip(*map(_result, (a, b)), strict=True)
  names = [
    name
    for name in states[0] | states[1]
    if not _same(states[0].get(name), states[1].get(name))
  ]
  if rows[0] != rows[1]:
    names.append('metrics.jsonl')
  return names


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
  if a is None or b is None:
    return False
  return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _result(workdir: pathlib.Path) -> tuple[dict[str, np.ndarray], list[dict]]:
  like = train_state.abstract_train_state(workdir_lib.read_config(workdir))
  with checkpoint.Checkpointer(workdir) as checkpointer:
    state, _ = checkpointer.restore(_STEPS.value, like)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  rows = [{k: v for k, v in row.items() if k != 'timing'} for row in rows]
  return checkpoint.flatten(state), rows


def main(argv: list[str]) -> None:
  """Prints the result; exit code 1 where runs differ."""
  del argv
  logging.set_verbosity(logging.WARNING)
  with command_line.one_sentence():
    if not _WORKDIR.value:
      raise errors.UserError('--workdir is missing; give a new directory.')
    workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
    workdir.mkdir(parents=True)
    undisturbed, killed = workdir / 'undisturbed', workdir / 'killed'
    Run(undisturbed).finish()
    counts = _storm(killed)
    differences = _differences(undisturbed / 'run', killed / 'run')
  result = {
    'steps': _STEPS.value,
    'devices': _DEVICES.value,
    'kills': counts,
    'differs': differences,
  }
  print(json.dumps(result))
  sys.exit(bool(differences))


if __name__ == '__main__':
  app.run(main)
