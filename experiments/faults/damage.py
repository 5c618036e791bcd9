"""Files of a run that are truncated, emptied, changed or removed."""

import collections
import pathlib
import shutil
from collections.abc import Callable, Iterator

from alexnet_jax import checkpoint, errors, train_state
from alexnet_jax import workdir as workdir_lib
from experiments.faults import trial

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


def checkpoints(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """Each file of the newest checkpoint in turn, then one whole run.

  Args:
    workdir: a new directory.
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
    # There is always an older one that is whole.
    bad = counts[trial.WRONG] + counts[trial.REFUSED]
    outcome = trial.WRONG if bad else trial.SURVIVED
    said = ', '.join(f'{count} {what}' for what, count in counts.items())
    case = f'each of {len(names)} files of a checkpoint {damage}'
    yield trial.Row(case, outcome, said)
  yield _trained_on(workdir, whole)


def _files(run: pathlib.Path) -> list[pathlib.Path]:
  newest = run / 'checkpoints' / str(_STEPS)
  return sorted(path for path in newest.rglob('*') if path.is_file())


def apply(damage: str, path: pathlib.Path) -> None:
  """Does to a file what `DAMAGES` calls so."""
  change = DAMAGES[damage]
  if change is None:
    path.unlink()
  else:
    path.write_bytes(change(path.read_bytes()))


def _restored(run: pathlib.Path, whole: pathlib.Path) -> str:
  """What a start finds."""
  like = train_state.abstract_train_state(workdir_lib.read_config(whole))
  with checkpoint.Checkpointer(run) as checkpointer:
    try:
      state, _ = checkpointer.restore_newest(like)
    except errors.UserError:
      return trial.REFUSED
  step = int(state.step)
  with checkpoint.Checkpointer(whole) as checkpointer:
    saved, _ = checkpointer.restore(step, like)
  pairs = zip(
    checkpoint.flatten(state).values(),
    checkpoint.flatten(saved).values(),
    strict=True,
  )
  if any(a.tobytes() != b.tobytes() for a, b in pairs):
    return trial.WRONG
  return 'the same bits' if step == _STEPS else 'fell back'


def _trained_on(workdir: pathlib.Path, whole: trial.Run) -> trial.Row:
  """A run that lost its last checkpoint ends like the others."""
  damaged = workdir / 'damaged'
  shutil.copytree(whole.workdir, damaged / 'run')
  largest = max(_files(damaged / 'run'), key=lambda path: path.stat().st_size)
  apply('a bit flipped', largest)
  run = trial.Run(damaged, _STEPS)
  run.finish()
  case = 'a bit of the newest checkpoint flipped, then trained on'
  if not run.has_said(f'{_STEPS}.damaged'):
    return trial.Row(case, trial.WRONG, 'nothing was said')
  return trial.compare(case, whole.workdir, run.workdir, 'set aside, and said')


def metrics(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """A metrics.jsonl whose last line is cut.

  Args:
    workdir: a new directory.
  """
  whole = trial.Run(workdir / 'whole', _STEPS)
  whole.finish()
  half = trial.Run(workdir / 'cut', _STEPS // 2)
  half.finish()
  path = half.workdir / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-20])
  trial.Run(workdir / 'cut', _STEPS).finish()
  case = 'last line of metrics.jsonl cut'
  yield trial.compare(case, whole.workdir, half.workdir, 'written again')
