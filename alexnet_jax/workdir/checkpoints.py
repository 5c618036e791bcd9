"""Checkpoints: canonical state through orbax, every leaf under a digest.

A checkpoint does not depend on the devices. Beside the state lie SHA-256
digests, because orbax returns wrong values without an error when a bit of its
data file flips.
"""

import contextlib
import hashlib
import itertools
import json
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epy
from flax import traverse_util

from alexnet_jax import errors, multihost

with epy.lazy_imports():  # slow: not at a program's start
  import orbax.checkpoint as ocp

Tree = Any
# The one checkpoint of a run that was made small, see `write_weights`.
WEIGHTS = 'weights.safetensors'
_STATE = 'state'
_EXTRA = 'extra'
_REPLACED = '.replaced'
# In place of a step: the checkpoint of the lowest validation error.
BEST = -1
# Seconds between attempts to read a file.
_PAUSES = (0.2, 2)
_READ_ERRORS = (ValueError, OSError, KeyError, TypeError, AttributeError)


def flatten(state: Tree) -> dict[str, np.ndarray]:
  """Returns the leaves by name, as 'params/conv1/kernel'."""
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


def _without_barriers() -> 'ocp.options.MultiprocessingOptions':
  """Returns the options with which orbax waits for no other process."""
  number = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=number,
    active_processes={number},
    barrier_sync_key_prefix=f'process{number}',
  )


class DamagedError(errors.UserError):
  """The error of a checkpoint that is not what was saved."""


def _unreadable(path: pathlib.Path, cause: Exception) -> DamagedError:
  return DamagedError(
    f'checkpoint {path} cannot be read ({errors.first_line(cause)})'
  )


@contextlib.contextmanager
def _with_remedy() -> Iterator[None]:
  """Adds a remedy to the error of a checkpoint that is to be applied."""
  try:
    yield
  except DamagedError as error:
    raise DamagedError(
      f'{error}; name an earlier one, as WORKDIR@STEP or with '
      '--config.eval.step, or train on.'
    ) from error


class Checkpointer:
  """Saves, finds and verifies the checkpoints of a workdir.

  Args:
    workdir: Absolute path of the run.
    keep: Number of checkpoints to keep, the newest ones; None for all. The one
      that `extra['best_step']` of the newest save names is kept as well.
  """

  def __init__(self, workdir: pathlib.Path, keep: int | None = None):
    self._directory = workdir / 'checkpoints'
    self._directory.mkdir(parents=True, exist_ok=True)
    self._replaces = False
    policies = ocp.checkpoint_managers
    self._policy = policies.AnyPreservationPolicy(
      [policies.LatestN(keep), policies.CustomSteps([])]
    )
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        create=False,
        preservation_policy=self._policy,
        enable_async_checkpointing=True,
        multiprocessing_options=_without_barriers(),
      ),
      handler_registry=ocp.handlers.create_default_handler_registry(
        **{
          _STATE: ocp.StandardCheckpointHandler(),
          _EXTRA: ocp.JsonCheckpointHandler(),
        }
      ),
    )

  def latest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, None without one."""
    return self._manager.latest_step()

  def save(self, step: int, state: Tree, extra: dict) -> None:
    """Saves in the background, in the primary process.

    A checkpoint of the same step is replaced; if the process dies meanwhile,
    the old one stays.

    Args:
      step: Step of the state, which names the checkpoint.
      state: Canonical state, numpy arrays that nobody writes to any more.
      extra: JSON values that belong to it.
    """
    if not multihost.is_primary():
      return
    leaves = flatten(state)
    if step == self.latest_step():
      self._replace(step)
    best = ocp.checkpoint_managers.CustomSteps([extra.get('best_step')])
    self._policy.policies[1] = best
    items = ocp.args.Composite(
      **{
        _STATE: ocp.args.StandardSave(_nest(leaves)),
        _EXTRA: ocp.args.JsonSave(extra | {'sha256': _digests(leaves, extra)}),
      }
    )
    with errors.no_room_as_os_error(self._directory):
      if not self._manager.save(step, args=items):
        raise errors.UserError(
          f'{self._directory} has not taken the checkpoint of step {step}; '
          'remove what is newer there, and the same command goes on.'
        )

  def _replace(self, step: int) -> None:
    """Renames the checkpoint of a step, because orbax saves no step twice."""
    self.wait()
    path = self._directory / str(step)
    path.rename(path.with_name(f'{step}{_REPLACED}'))
    self._manager.reload()
    self._replaces = True

  def recover(self) -> None:
    """Removes unfinished saves of a process that was killed.

    Only for the process that trains the run.
    """
    if multihost.is_primary():
      unfinished = f'*{ocp.utils.TMP_DIR_SUFFIX}*'
      for path in self._directory.glob(unfinished):
        shutil.rmtree(path)
      self._remove_replaced()
      self._manager.reload()

  def _remove_replaced(self) -> None:
    """Removes replaced checkpoints, or puts them back without a new one."""
    for old in self._directory.glob(f'*{_REPLACED}'):
      new = old.with_suffix('')
      if new.exists():
        shutil.rmtree(old)
      else:
        old.rename(new)

  def restore(self, step: int, like: Tree) -> tuple[int, Tree, dict]:
    """Reads and verifies a checkpoint, or the groups of it that are asked for.

    Args:
      step: Step of the checkpoint, 0 for the newest, BEST for the best.
      like: Expected state, arrays or shapes; its groups, such as 'params', may
        be fewer than the checkpoint's.

    Returns:
      The step, the state as numpy arrays, and `extra` with 'sha256', a digest
      of each leaf.

    Raises:
      UserError: If there is no such checkpoint, or its leaves are of another
        network.
      DamagedError: If it cannot be read, or a leaf's digest is wrong.
    """
    with _with_remedy():
      step = self._choose(step)
      return step, *self._restore(step, like, is_part=True)

  def _restore(
    self, step: int, like: Tree, *, is_part: bool = False
  ) -> tuple[Tree, dict]:
    """Reads and verifies; `is_part` lets the checkpoint have more groups.

    A disk or a network that fails for a moment says nothing about the data, so
    that only a checkpoint whose files can be read as a whole is called damaged.
    """
    path = self._directory / str(step)
    for _ in range(2):
      try:
        return self._read(step, like, is_part)
      except _READ_ERRORS as error:
        cause = error
      _read_files(path)
    raise _unreadable(path, cause) from cause

  def _read(self, step: int, like: Tree, is_part: bool) -> tuple[Tree, dict]:
    """Reads and verifies a checkpoint in one attempt."""
    expected = flatten(like)
    groups = {name.partition('/')[0] for name in expected}
    saved = flatten(self._manager.item_metadata(step)[_STATE].tree)
    compared = {
      name: leaf
      for name, leaf in saved.items()
      if not is_part or name.partition('/')[0] in groups
    }
    _compare(self._directory / str(step), compared, expected)
    leaves, extra = self._read_leaves(step, saved)
    digests = extra.pop('sha256')
    self._verify(step, _digests(leaves, extra), digests)
    ordered = [leaves[name] for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(like), ordered)
    return state, extra | {'sha256': digests}

  def restore_newest(self, like: Tree) -> tuple[Tree, dict]:
    """Reads the newest checkpoint that is whole.

    Damaged ones are renamed, and a line says so. Of several processes, the
    primary one reads for all.

    Args:
      like: Expected state, arrays or shapes.

    Returns:
      The state as numpy arrays, and `extra` as `restore` does.

    Raises:
      UserError: If it is of another network.
      DamagedError: If none is whole; then nothing is renamed.
    """
    restored = self._first_whole(like) if multihost.is_primary() else None
    return multihost.broadcast(restored)

  def _first_whole(self, like: Tree) -> tuple[Tree, dict]:
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        restored = self._restore(step, like)
      except DamagedError as error:
        damaged.append((step, error))
      else:
        self._set_aside(damaged)
        return restored
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
      print(f'{error}: now called {aside.name}; an earlier one is used.')
    if damaged:
      self._manager.reload()

  def _read_leaves(self, step: int, expected: dict) -> tuple[dict, dict]:
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
    if steps and step == BEST:
      step = self._best_step(max(steps))
    if not steps or (step and step not in steps):
      raise errors.UserError(
        f'eval.step={step}: no such checkpoint in {self._directory}, which '
        f'has {sorted(steps) or "none"}; give one of these, or train first.'
      )
    return step or max(steps)

  def _best_step(self, newest: int) -> int:
    """Returns the step that the newest checkpoint names as the best."""
    extra = self._read_extra(newest)
    if extra.get('best_step') is None:
      raise errors.UserError(
        f'eval.step={BEST} (best): {self._directory} has no best checkpoint, '
        'because nothing was evaluated with keep_best=True; name a step.'
      )
    return extra['best_step']

  def _read_extra(self, step: int) -> dict:
    """Reads and verifies the JSON beside a state."""
    args = ocp.args.Composite(**{_EXTRA: ocp.args.JsonRestore()})
    try:
      extra = self._manager.restore(step, args=args)[_EXTRA]
      digests = extra.pop('sha256')
    except _READ_ERRORS as error:
      raise _unreadable(self._directory / str(step), error) from error
    self._verify(step, _digests({}, extra), digests)
    return extra

  def _verify(self, step: int, actual: dict, saved: dict) -> None:
    for name, digest in actual.items():
      if digest != saved.get(name):
        raise DamagedError(
          f'checkpoint {self._directory / str(step)} is damaged: {name} is '
          'not what was saved'
        )

  def wait(self) -> None:
    """Waits until everything that was saved is on the disk."""
    with errors.no_room_as_os_error(self._directory):
      self._manager.wait_until_finished()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *_) -> None:
    """Waits until everything that was saved is on the disk, and closes."""
    with errors.no_room_as_os_error(self._directory):
      self._manager.close()
    if self._replaces:
      self._remove_replaced()


def write_weights(
  workdir: pathlib.Path, step: int, variables: Tree, extra: dict
) -> None:
  """Writes the one checkpoint of a run that is no longer trained.

  It has no velocities, and its parameters are rounded to float16: a quarter of
  the size. `read_weights` reads it.

  Args:
    workdir: Absolute path of the run.
    step: Step of the weights.
    variables: 'params' and 'batch_stats', canonical.
    extra: JSON values that belong to them.

  Raises:
    UserError: If a parameter is too large for float16.
  """
  leaves = flatten(variables)
  for name in [name for name in leaves if name.startswith('params/')]:
    if np.abs(leaves[name]).max() > np.finfo(np.float16).max:
      raise errors.UserError(
        f'{name} has numbers that float16 cannot hold; copy the workdir.'
      )
    leaves[name] = leaves[name].astype(np.float16)
  leaves = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
  extra = extra | {'step': step}
  extra |= {'sha256': _digests(leaves, extra)}
  texts = {_EXTRA: json.dumps(extra)}
  safetensors.numpy.save_file(leaves, workdir / WEIGHTS, texts)


def read_weights(
  workdir: pathlib.Path, step: int, like: Tree
) -> tuple[int, Tree, dict]:
  """Reads and verifies what `write_weights` wrote.

  Args:
    workdir: Absolute path of the run.
    step: Step of the weights; 0 or BEST for any.
    like: Expected variables, arrays or shapes.

  Returns:
    The step, the variables in float32, and `extra` as `Checkpointer.restore`.

  Raises:
    UserError: If the weights are of another step or network.
    DamagedError: If the file is not as it was written.
  """
  path = workdir / WEIGHTS
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
      extra = json.loads(file.metadata()[_EXTRA])
    digests = extra.pop('sha256')
    is_whole = _digests(leaves, extra) == digests
  except (*_READ_ERRORS, safetensors.SafetensorError):
    is_whole = False
  if not is_whole:
    raise DamagedError(f'{path} is damaged; install or export it again.')
  if step not in (0, BEST, extra['step']):
    raise errors.UserError(
      f'eval.step={step}: {workdir} has step {extra["step"]} only; give that.'
    )
  leaves = {name: leaf.astype(np.float32) for name, leaf in leaves.items()}
  expected = flatten(like)
  _compare(path, leaves, expected)
  ordered = [leaves[name] for name in expected]
  variables = jax.tree.unflatten(jax.tree.structure(like), ordered)
  return extra['step'], variables, extra | {'sha256': digests}


def _read_files(path: pathlib.Path) -> None:
  """Reads every file of a checkpoint, more than once if it must.

  Raises:
    OSError: If a file cannot be read.
  """
  for pause in (*_PAUSES, None):
    try:
      for file in path.rglob('*'):
        if not file.is_dir():
          file.read_bytes()
      return
    except OSError as error:
      if pause is None:
        raise OSError(error.errno, error.strerror, str(file)) from error
      time.sleep(pause)


def _compare(path: pathlib.Path, saved: dict, expected: dict) -> None:
  """Raises UserError that names missing, extra and different leaves."""
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
  if 'rate_scale is extra' in differences:
    raise errors.UserError(
      f'checkpoint {path} was written by an older version of this project; it '
      'can be evaluated or named by init_from, but not resumed: give a new '
      'workdir.'
    )
  if differences:
    shown = '; '.join(differences[:5])
    raise errors.UserError(
      f'checkpoint {path} is of another network ({shown}); give the workdir '
      'of this config, or a new one.'
    )
