"""Full disks, disks that cannot be written, and two runs in one place.

Full and read-only disks are small tmpfs mounts, for which Linux wants root.
"""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from experiments.faults import trial

_STEPS = 60
_ENOUGH = '256m'
NOT_RUN = 'not run'


def full(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """No space for a checkpoint, for metrics, for the prepared data.

  Args:
    workdir: a new directory.
  """
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  data = f'--config.data.dir={workdir}/whole/data'
  # A checkpoint takes some 5 MB.
  yield _fill(workdir, whole, 'a checkpoint', '8m', [data])
  # Enough for what is written at the start; no checkpoint before the end.
  no_checkpoints = '--config.checkpoint_every_steps=1000'
  yield _fill(workdir, whole, 'metrics', '1m', [data, no_checkpoints])
  yield _fill(workdir, whole, 'prepare', '4m', [])


def _fill(
  workdir: pathlib.Path,
  whole: trial.Run,
  what: str,
  size: str,
  flags: list[str],
) -> trial.Row:
  case = f'disk full during {what}'
  directory = workdir / what.replace(' ', '-')
  with _mounted(directory, size) as mounted:
    if not mounted:
      return trial.Row(case, NOT_RUN, 'mounting a tmpfs takes root')
    run = trial.Run(directory, _STEPS, flags)
    code, said = run.wait(), run.last_line()
    if code != 1 or 'No space left' not in said:
      return trial.Row(case, trial.WRONG, f'exit code {code}: "{said}"')
    _remount(directory, f'size={_ENOUGH}')
    trial.Run(directory, _STEPS, flags).finish()
    said = f'exit code {code}: "{said}"; then, with more space, to the end'
    return trial.compare(case, whole.workdir, run.workdir, said)


@contextlib.contextmanager
def _mounted(directory: pathlib.Path, size: str) -> Iterator[bool]:
  directory.mkdir(parents=True)
  options = f'size={size}'
  command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(directory)]
  if subprocess.run(command, capture_output=True, check=False).returncode:
    yield False
    return
  try:
    yield True
  finally:
    subprocess.run(['umount', '--lazy', str(directory)], check=True)


def _remount(directory: pathlib.Path, options: str) -> None:
  command = ['mount', '-o', f'remount,{options}', str(directory)]
  subprocess.run(command, check=True)


def refusals(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """A read-only workdir, another config's, one that is in use.

  Args:
    workdir: a new directory.
  """
  run = trial.Run(workdir / 'run', _STEPS)
  run.finish()
  yield _read_only(workdir, run)
  other = trial.Run(workdir / 'run', _STEPS, ['--config.model.omit=lrn'])
  yield trial.refused('the workdir of another config', other, 'model.omit')
  first = trial.Run(workdir / 'both', 10 * _STEPS)
  first.wait_for(trial.Run.is_training)
  second = trial.Run(workdir / 'both', 10 * _STEPS)
  yield trial.refused('two processes on one workdir', second, 'another process')
  first.kill()


def _read_only(workdir: pathlib.Path, run: trial.Run) -> trial.Row:
  case = 'a read-only workdir'
  directory = workdir / 'read-only'
  with _mounted(directory, _ENOUGH) as mounted:
    if not mounted:
      return trial.Row(case, NOT_RUN, 'mounting a tmpfs takes root')
    (directory / 'run').mkdir()
    shutil.copytree(run.workdir, directory / 'run', dirs_exist_ok=True)
    _remount(directory, 'ro')
    log = workdir / 'log'
    again = trial.Run(log, 2 * _STEPS, [f'--workdir={directory}/run'])
    return trial.refused(case, again, 'Read-only file system')


def clock(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Starts in other years: the run goes on, whatever the clock says.

  Args:
    workdir: a new directory.
  """
  case = 'the clock jumps ten years ahead, then back'
  if not shutil.which('faketime'):
    yield trial.Row(case, NOT_RUN, 'faketime is not installed')
    return
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  jumps = workdir / 'jumps'
  for part, offset in enumerate(('+10y', '-10y', '+0'), 1):
    run = trial.Run(
      jumps, part * _STEPS // 3, prefix=['faketime', '-f', offset]
    )
    run.finish()
  yield trial.compare(case, whole.workdir, run.workdir, 'three starts')
