"""Files of a checkpoint that are truncated, emptied, changed or removed."""

import collections
import pathlib
import shutil
from collections.abc import Callable, Iterator

from alexnet_jax import errors, train_step
from alexnet_jax.workdir import checkpoints, files
from tests.faults import trial

_STEPS = 60


def _truncate(content: bytes) -> bytes:
  return content[: len(content) // 2]


def _flip(content: bytes) -> bytes:
  changed = bytearray(content)
  if changed:
    changed[len(changed) // 2] ^= 4
  return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
  'truncated': _truncate,
  'emptied': lambda _: b'',
  'a bit flipped': _flip,
  'removed': None,
}


def apply(damage: str, path: pathlib.Path) -> None:
  """Does to a file what `DAMAGES` has under a name."""
  change = DAMAGES[damage]
  if change is None:
    path.unlink()
  else:
    path.write_bytes(change(path.read_bytes()))


def every_file(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Damages each file of the newest checkpoint in turn, then goes on from one.

  Args:
    workdir: New directory.
  """
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  names = [path.relative_to(whole.workdir) for path in _files(whole.workdir)]
  for damage in DAMAGES:
    counts = collections.Counter()
    for name in names:
      copy = workdir / 'copy'
      shutil.copytree(whole.workdir, copy)
      apply(damage, copy / name)
      counts[_restored(copy, whole.workdir)] += 1
      shutil.rmtree(copy)
    outcome = trial.WRONG if counts[trial.WRONG] else trial.SURVIVED
    said = ', '.join(f'{count} {what}' for what, count in counts.items())
    case = f'each of {len(names)} files of a checkpoint {damage}'
    yield trial.Row(case, outcome, said)
  yield _trained_on(workdir, whole)


def _files(run: pathlib.Path) -> list[pathlib.Path]:
  newest = run / 'checkpoints' / str(_STEPS)
  return sorted(path for path in newest.rglob('*') if path.is_file())


def _restored(run: pathlib.Path, whole: pathlib.Path) -> str:
  """Returns what a start finds; an older checkpoint is always whole."""
  like = train_step.abstract_train_state(files.read_config(whole))
  with checkpoints.Checkpointer(run) as checkpointer:
    try:
      state, _ = checkpointer.restore_newest(like)
    except errors.UserError:
      return trial.WRONG
  step = int(state.step)
  with checkpoints.Checkpointer(whole) as checkpointer:
    _, saved, _ = checkpointer.restore(step, like)
  pairs = zip(
    checkpoints.flatten(state).values(),
    checkpoints.flatten(saved).values(),
    strict=True,
  )
  if any(a.tobytes() != b.tobytes() for a, b in pairs):
    return trial.WRONG
  return 'the same bits' if step == _STEPS else 'fell back'


def _trained_on(workdir: pathlib.Path, whole: trial.Run) -> trial.Row:
  """Returns the row of a run that lost its last checkpoint and trains on."""
  directory = workdir / 'damaged'
  shutil.copytree(whole.workdir, directory / 'run')
  largest = max(_files(directory / 'run'), key=lambda path: path.stat().st_size)
  apply('a bit flipped', largest)
  run = trial.Run(directory, _STEPS)
  run.finish()
  case = 'a bit of the newest checkpoint flipped, then trained on'
  if not run.has_said(f'{_STEPS}.damaged'):
    return trial.Row(case, trial.WRONG, 'nothing was said')
  run.found = _STEPS - trial.SAVE_EVERY  # the newest one that is whole
  return trial.compare(case, whole.workdir, [run], 'set aside, and said')
