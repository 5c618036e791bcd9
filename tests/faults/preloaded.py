"""Reads that end in EIO, and a clock that is years off (preload.c)."""

import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from tests.faults import trial

_SAVED, _STEPS = 30, 60
# Files of the newest checkpoint, read by Python and by tensorstore.
_READ = (f'checkpoints/{_SAVED}/extra', f'checkpoints/{_SAVED}/state/d/')


def eio(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Lets reads of a checkpoint, and of the pictures, fail.

  A disk that answers later must find the checkpoint where it was.

  Args:
    workdir: New directory.
  """
  library = _build(workdir)
  if not library:
    yield trial.Row('reads end in EIO', trial.NOT_RUN, 'gcc is missing')
    return
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  first = trial.Run(workdir / 'first', _SAVED)
  first.finish()
  for text in (*_READ, 'data/shapes/train'):
    yield _fails(workdir, library, whole, first, text)
  for text in _READ:
    yield _fails(workdir, library, whole, first, text, is_once=True)


def clock(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Kills runs in other years: they go on, whatever the clock says.

  Args:
    workdir: New directory.
  """
  case = 'SIGKILL ten years ahead, SIGKILL ten years ago, then today'
  library = _build(workdir)
  if not library:
    yield trial.Row(case, trial.NOT_RUN, 'gcc is missing')
    return
  whole = trial.Run(workdir / 'whole', 2 * _STEPS)
  whole.finish()
  runs = []
  for years in ('10', '-10'):
    environment = {'LD_PRELOAD': library, 'FAULT_YEARS': years}
    runs.append(run := trial.Run(workdir / 'run', 2 * _STEPS, (), environment))
    run.wait_for(lambda run: run.last_step() >= run.found + _SAVED)
    run.kill()
  runs.append(last := trial.Run(workdir / 'run', 2 * _STEPS))
  last.finish()
  yield trial.compare(case, whole.workdir, runs, 'three starts')


def _build(workdir: pathlib.Path) -> str | None:
  """Returns the path of the compiled library, None without a compiler."""
  if not shutil.which('gcc'):
    return None
  workdir.mkdir(parents=True)
  library = workdir / 'preload.so'
  source = pathlib.Path(__file__).with_name('preload.c')
  command = ['gcc', '-shared', '-fPIC', '-o', library, source, '-ldl']
  subprocess.run(command, check=True)
  return str(library)


def _fails(
  workdir: pathlib.Path,
  library: str,
  whole: trial.Run,
  first: trial.Run,
  text: str,
  *,
  is_once: bool = False,
) -> trial.Row:
  """Returns the row of a start that must end, or read again and go on."""
  case = f'EIO from {"the first read" if is_once else "all reads"} of {text}'
  directory = workdir / f'{text.replace("/", "-")}-{is_once}'
  shutil.copytree(workdir / 'first', directory)
  environment = {'LD_PRELOAD': library, 'FAULT_EIO': text}
  if is_once:
    environment['FAULT_EIO_TIMES'] = '1'
  runs = [first, run := trial.Run(directory, _STEPS, (), environment)]
  if is_once:
    run.finish()
    said = 'read again'
  else:
    said = f'exit code {run.wait()}: "{run.last_line()}"'
    if not run.was_refused('Input/output error'):
      return trial.Row(case, trial.WRONG, said)
    runs.append(again := trial.Run(directory, _STEPS))
    again.finish()
    said += '; then, with a disk that answers, to the end'
  return trial.compare(case, whole.workdir, runs, said, most=0)
