"""Checkpoints: canonical state through orbax, every leaf under a digest.

A checkpoint holds nothing of the device layout. Beside the state lie
SHA-256 digests, for orbax returns wrong values without a word when a
bit of its data file flips.
"""

import errno
import hashlib
import itertools
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from alexnet_jax import errors, hosts

Tree = Any
_STATE = 'state'
_EXTRA = 'extra'
_REPLACED = '.replaced'
_REMEDY = 'name an earlier one with --config.eval.step, or train on'
# Says nothing about what is on the disk.
_OF_THE_SYSTEM = (
  errno.EACCES,
  errno.EMFILE,
  errno.ENFILE,
  errno.ENOMEM,
  errno.ESTALE,
)


def flatten(state: Tree) -> dict[str, np.ndarray]:
  """Leaves by name, as 'params/conv1/kernel'."""
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def _nest(leaves: dict[str, Any]) -> dict:
  return traverse_util.unflatten_dict(leaves, sep='/')


def _digests(leaves: dict[str, np.ndarray], extra: dict) -> dict[str, str]:
  digests = {
    name: hashlib.sha256(np.ascontiguousarray(leaf).data).hexdigest()
    for name, leaf in leaves.items()
  }
  text = json.dumps(extra, sort_keys=True)
  return digests | {'extra': hashlib.sha256(text.encode()).hexdigest()}


def _without_barriers() -> ocp.options.MultiprocessingOptions:
  """Has orbax wait for no other process."""
  number = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=number,
    active_processes={number},
    barrier_sync_key_prefix=f'process{number}',
  )


class DamagedError(errors.UserError):
  """A checkpoint is not what was saved."""


class Checkpointer:
  """Saves, finds and verifies the checkpoints of a workdir.

  Args:
    workdir: absolute path.
    keep: how many to keep; the oldest go first.
  """

  def __init__(self, workdir: pathlib.Path, keep: int | None = None):
    self._directory = workdir / 'checkpoints'
    self._directory.mkdir(parents=True, exist_ok=True)
    self._replaces = False
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        create=False,
        max_to_keep=keep,
        enable_async_checkpointing=True,
        multiprocessing_options=_without_barriers(),
      ),
      item_handlers={
        _STATE: ocp.StandardCheckpointHandler(),
        _EXTRA: ocp.JsonCheckpointHandler(),
      },
    )

  def latest_step(self) -> int | None:
    """The newest complete checkpoint's step."""
    return self._manager.latest_step()

  def save(self, step: int, state: Tree, extra: dict) -> None:
    """Saves in the background, over what the step has been saved as.

    Of several processes, the first does.

    A process that dies meanwhile leaves the old one.

    Args:
      step: names the checkpoint.
      state: canonical, numpy arrays that nobody writes to any more.
      extra: JSON values that belong to it.
    """
    if not hosts.is_first():
      return
    leaves = flatten(state)
    if step == self.latest_step():
      self._replace(step)
    items = ocp.args.Composite(
      **{
        _STATE: ocp.args.StandardSave(_nest(leaves)),
        _EXTRA: ocp.args.JsonSave(extra | {'sha256': _digests(leaves, extra)}),
      }
    )
    with errors.no_room_as_os_error(self._directory):
      self._manager.save(step, args=items)

  def _replace(self, step: int) -> None:
    """Makes room for a checkpoint, whose old one has another name until then.

    orbax takes no step twice.
    """
    self.wait()
    path = self._directory / str(step)
    path.rename(path.with_name(f'{step}{_REPLACED}'))
    self._manager.reload()
    self._replaces = True

  def recover(self) -> None:
    """Ends what a process that died has begun; for a run's only trainer."""
    if hosts.is_first():
      unfinished = f'*{ocp.utils.TMP_DIR_SUFFIX}*'
      for path in self._directory.glob(unfinished):
        shutil.rmtree(path)
      self._remove_replaced()
      self._manager.reload()

  def _remove_replaced(self) -> None:
    """Of a checkpoint and the one that it replaces, one is left."""
    for old in self._directory.glob(f'*{_REPLACED}'):
      new = old.with_suffix('')
      if new.exists():
        shutil.rmtree(old)
      else:
        old.rename(new)

  def restore(self, step: int, like: Tree) -> tuple[Tree, dict]:
    """Reads and verifies a checkpoint.

    Args:
      step: which one; 0 for the newest.
      like: the expected state, arrays or shapes.

    Returns:
      The state as numpy arrays, and `extra` with 'sha256', a digest a leaf.

    Raises:
      UserError: where there is no such checkpoint, or its leaves are of another
        network.
      DamagedError: where it cannot be read, or a leaf's digest is wrong.
    """
    return self._restore(self._choose(step), like)

  def _restore(self, step: int, like: Tree) -> tuple[Tree, dict]:
    expected = flatten(like)
    try:
      saved = flatten(self._manager.item_metadata(step)[_STATE].tree)
      _compare(self._directory / str(step), saved, expected)
      leaves, extra = self._read(step, expected)
      digests = extra.pop('sha256')
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
      if getattr(error, 'errno', None) in _OF_THE_SYSTEM:
        raise
      raise DamagedError(
        f'checkpoint {self._directory / str(step)} cannot be read '
        f'({errors.first_line(error)}); {_REMEDY}.'
      ) from error
    self._verify(step, _digests(leaves, extra), digests)
    ordered = [leaves[name] for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(like), ordered)
    return state, extra | {'sha256': digests}

  def restore_newest(self, like: Tree) -> tuple[Tree, dict]:
    """Reads the newest checkpoint that is whole, where there are any.

    Later ones are renamed, and a line says so. Of several processes, the first
    chooses.

    Args:
      like: as `restore`.

    Returns:
      As `restore`.

    Raises:
      UserError: where it is of another network.
      DamagedError: where none is whole; nothing is renamed.
    """
    if hosts.is_first():
      step, restored = self._first_whole(like)
      hosts.agree(step)
      return restored
    step = hosts.agree(0)
    self._manager.reload()
    return self._restore(step, like)

  def _first_whole(self, like: Tree) -> tuple[int, tuple[Tree, dict]]:
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        restored = self._restore(step, like)
      except DamagedError as error:
        damaged.append((step, error))
      else:
        self._set_aside(damaged)
        return step, restored
    raise DamagedError(
      f'none of the checkpoints in {self._directory} is whole (the newest: '
      f'{damaged[0][1]}); start a new workdir.'
    )

  def _set_aside(self, damaged: list[tuple[int, DamagedError]]) -> None:
    for step, error in damaged:
      path = self._directory / str(step)
      names = (f'{step}.damaged{n or ""}' for n in itertools.count())
      aside = next(
        new for name in names if not (new := path.with_name(name)).exists()
      )
      path.rename(aside)
      print(f'{error} It is now called {aside.name}; an earlier one is used.')
    if damaged:
      self._manager.reload()

  def _read(self, step: int, expected: dict) -> tuple[dict, dict]:
    target = {k: np.empty(x.shape, x.dtype) for k, x in expected.items()}
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        **{
          _STATE: ocp.args.StandardRestore(_nest(target)),
          _EXTRA: ocp.args.JsonRestore(),
        }
      ),
    )
    return flatten(restored[_STATE]), restored[_EXTRA]

  def _choose(self, step: int) -> int:
    steps = self._manager.all_steps()
    if not steps or (step and step not in steps):
      raise errors.UserError(
        f'eval.step={step}: no such checkpoint in {self._directory}, which '
        f'has {sorted(steps) or "none"}; give one of these, or train first.'
      )
    return step or max(steps)

  def _verify(self, step: int, actual: dict, saved: dict) -> None:
    for name, digest in actual.items():
      if digest != saved.get(name):
        raise DamagedError(
          f'checkpoint {self._directory / str(step)} is damaged: {name} is '
          f'not what was saved; {_REMEDY}.'
        )

  def wait(self) -> None:
    """Returns when what was saved is on disk."""
    with errors.no_room_as_os_error(self._directory):
      self._manager.wait_until_finished()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *_) -> None:
    """Waits until what was saved is on disk, and closes."""
    with errors.no_room_as_os_error(self._directory):
      self._manager.close()
    if self._replaces:
      self._remove_replaced()


def _compare(path: pathlib.Path, saved: dict, expected: dict) -> None:
  """Names leaves that are missing, extra, or of another shape or type."""
  differences = [
    f'{name} is missing' for name in sorted(expected.keys() - saved.keys())
  ]
  differences += [
    f'{name} is extra' for name in sorted(saved.keys() - expected.keys())
  ]
  for name in sorted(expected.keys() & saved.keys()):
    there, here = saved[name], expected[name]
    if (tuple(there.shape), there.dtype) != (tuple(here.shape), here.dtype):
      differences.append(
        f'{name} is {there.dtype}{list(there.shape)}, not '
        f'{here.dtype}{list(here.shape)}'
      )
  if differences:
    shown = '; '.join(differences[:5])
    raise errors.UserError(
      f'checkpoint {path} is of another network ({shown}); give the workdir '
      'of this config, or a new one.'
    )
