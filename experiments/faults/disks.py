"""Full disks, disks that cannot be written, and two runs in one place.

Full and read-only disks are small tmpfs mounts, for which Linux wants root.
"""

import contextlib
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Iterator

from experiments.faults import trial

_STEPS = 60
_ENOUGH = '256m'
_NO_MOUNT = 'mounting a tmpfs takes root'


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
  # Filled while steps are made; there are no checkpoints before the end.
  no_checkpoints = '--config.checkpoint_every_steps=1000'
  yield _fill(workdir, whole, 'metrics', '8m', [data, no_checkpoints])
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
      return trial.Row(case, trial.NOT_RUN, _NO_MOUNT)
    run = trial.Run(directory, _STEPS, flags)
    if what == 'metrics':
      run.wait_for(trial.Run.is_training)
      _write_until_full(directory / 'other')
    code, said = run.wait(), run.last_line()
    if not trial.has_refused(run, code, 'No space left'):
      return trial.Row(case, trial.WRONG, f'exit code {code}: "{said}"')
    _remount(directory, f'size={_ENOUGH}')
    trial.Run(directory, _STEPS, flags).finish()
    said = f'exit code {code}: "{said}"; then, with more space, to the end'
    return trial.compare(case, whole.workdir, run.workdir, said)


def _write_until_full(path: pathlib.Path) -> None:
  with contextlib.suppress(OSError), path.open('wb', buffering=0) as file:
    while True:
      file.write(bytes(512))


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
  yield _other_config(workdir, run)
  yield _in_use(workdir, run)


def _read_only(workdir: pathlib.Path, run: trial.Run) -> trial.Row:
  case = 'a read-only workdir'
  directory = workdir / 'read-only'
  with _mounted(directory, _ENOUGH) as mounted:
    if not mounted:
      return trial.Row(case, trial.NOT_RUN, _NO_MOUNT)
    (directory / 'run').mkdir()
    shutil.copytree(run.workdir, directory / 'run', dirs_exist_ok=True)
    _remount(directory, 'ro')
    flags = [
      f'--workdir={directory}/run',
      f'--config.data.dir={workdir}/run/data',
    ]
    again = trial.Run(workdir / 'log', 2 * _STEPS, flags)
    return trial.refused(case, again, 'Read-only file system')


def _other_config(workdir: pathlib.Path, run: trial.Run) -> trial.Row:
  before = _contents(run.workdir)
  other = trial.Run(workdir / 'run', _STEPS, ['--config.model.omit=lrn'])
  row = trial.refused('the workdir of another config', other, 'model.omit')
  if _contents(run.workdir) != before:
    return trial.Row(row.case, trial.WRONG, f'{row.said}; files have changed')
  return row


def _contents(directory: pathlib.Path) -> dict[pathlib.Path, bytes]:
  files = filter(pathlib.Path.is_file, directory.rglob('*'))
  return {path: path.read_bytes() for path in files}


def _in_use(workdir: pathlib.Path, whole: trial.Run) -> trial.Row:
  """The first, which is held meanwhile, ends like any."""
  flags = [f'--config.data.dir={workdir}/run/data']
  first = trial.Run(workdir / 'both', _STEPS, flags)
  first.wait_for(trial.Run.is_training)
  first.send(signal.SIGSTOP)
  second = trial.Run(workdir / 'both', _STEPS, flags)
  row = trial.refused('two processes on one workdir', second, 'another process')
  first.send(signal.SIGCONT)
  first.finish()
  differs = trial.differences(whole.workdir, first.workdir)
  if differs:
    said = f'{row.said}; the first differs: {", ".join(differs)}'
    return trial.Row(row.case, trial.WRONG, said)
  return row


def clock(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Starts in other years: the run goes on, whatever the clock says.

  Args:
    workdir: a new directory.
  """
  case = 'the clock is ten years ahead, ten behind, and right'
  if not shutil.which('faketime'):
    yield trial.Row(case, trial.NOT_RUN, 'faketime is not installed')
    return
  # Each start ends where an undisturbed run evaluates as well.
  ends = {'+10y': 30, '-10y': 60, '+0': 90}
  whole = trial.Run(workdir / 'whole', max(ends.values()))
  whole.finish()
  for offset, end in ends.items():
    prefix = ['faketime', '-f', offset]
    run = trial.Run(workdir / 'jumps', end, prefix=prefix)
    run.finish()
  yield trial.compare(case, whole.workdir, run.workdir, 'three starts')
