"""Full disks: small tmpfs mounts, for which Linux wants root."""

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

from tests.faults import trial

_STEPS = 60
_ENOUGH = '256m'


def full(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Leaves no space for a checkpoint, for metrics, for the prepared data.

  Args:
    workdir: New directory.
  """
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  data = f'--config.data.dir={workdir}/whole/data'
  # A checkpoint takes some 5 MB: there is room for the first ones.
  yield _fill(workdir, whole, 'a checkpoint', '13m', [data])
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
      return trial.Row(case, trial.NOT_RUN, 'mounting a tmpfs takes root')
    run = trial.Run(directory, _STEPS, flags)
    if what == 'metrics':
      run.wait_for(trial.Run.is_training)
      _write_until_full(directory / 'other')
    is_refused = run.was_refused('No space left')
    said = f'exit code {run.wait()}: "{run.last_line()}"'
    if not is_refused:
      return trial.Row(case, trial.WRONG, said)
    remount = ['mount', '-o', f'remount,size={_ENOUGH}', str(directory)]
    subprocess.run(remount, check=True)
    again = trial.Run(directory, _STEPS, flags)
    again.finish()
    said += '; then, with more space, to the end'
    most = _STEPS if what == 'metrics' else 2 * trial.SAVE_EVERY
    runs = [run, again]
    return trial.compare(case, whole.workdir, runs, said, most)


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
