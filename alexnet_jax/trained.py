"""A run's checkpoint, with all that it takes to apply it."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import ml_collections

from alexnet_jax import checkpoint, errors, parallel, validate
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import class_names, prepare, preprocessing, records
from alexnet_jax.train_state import abstract_train_state, tower_wise

Tree = Any


@dataclasses.dataclass(frozen=True)
class Stored:
  """A network with its weights.

  Attributes:
    workdir: absolute path of the run.
    config: the run's, with what evaluation changed.
    process: the run's own preprocessing.
    params: canonical, numpy arrays.
    step: of the checkpoint.
    class_names: in the order of labels.
    digest: of the checkpoint and the preprocessing; tells networks apart.
  """

  workdir: pathlib.Path
  config: ml_collections.ConfigDict
  process: preprocessing.Preprocessing
  params: Tree
  step: int
  class_names: list[str]
  digest: str

  @property
  def readable_names(self) -> list[str]:
    """The classes' names for a person, in the order of labels."""
    return class_names.readable(self.class_names)

  def open_data(self) -> records.PreparedSet:
    """The data that `config.data` names.

    Raises:
      UserError: where they are missing, or of other classes than the run's.
    """
    prepared = prepare.open_or_prepare(self.config.data)
    if self.class_names != prepared.class_names:
      raise errors.UserError(
        f'{prepared.directory} has other classes than {self.workdir} was '
        'trained on; give the data.dir of that data set.'
      )
    return prepared


@dataclasses.dataclass(frozen=True)
class Trained(Stored):
  """A network whose `params` are on the devices, as the plan has put them.

  Attributes:
    plan: how the work is spread.
  """

  plan: parallel.Plan


def load(name: str, overrides: dict[str, object]) -> Trained:
  """Restores a run by name, onto the devices.

  Args:
    name: as for `read`.
    overrides: likewise.

  Raises:
    UserError: where there is no such run, or checkpoint, preprocessing and
      devices do not fit its config.
  """
  return _put(read(name, overrides))


def restore(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Trained:
  """Restores a checkpoint of a run, onto the devices.

  Args:
    config: the run's, see `workdir.evaluation_config`; `eval.step` says which
      checkpoint.
    workdir: absolute path of the run.

  Raises:
    UserError: where checkpoint, preprocessing and devices do not fit the
      config.
  """
  return _put(_read(config, workdir))


def split_name(name: str) -> tuple[str, int | None]:
  """'WORKDIR@STEP' -> its two parts; 'WORKDIR' -> itself and None.

  Raises:
    UserError: where what comes after the @ is no step of training.
  """
  directory, at, step = name.rpartition('@')
  if not at or '/' in step:
    return name, None
  if not step.isdecimal() or not int(step):
    raise errors.UserError(
      f'workdir={name}: {step!r} is no step; give WORKDIR or WORKDIR@STEP.'
    )
  return directory, int(step)


def read(name: str, overrides: dict[str, object]) -> Stored:
  """Reads a run by name.

  Args:
    name: the workdir, or WORKDIR@STEP for a checkpoint that is not the newest.
    overrides: fields of its config, see `workdir.evaluation_config`.

  Raises:
    UserError: where there is no such run, or checkpoint and preprocessing do
      not fit its config.
  """
  directory, step = split_name(name)
  workdir = pathlib.Path(directory).expanduser().resolve()
  if step is not None:
    overrides = overrides | {'eval.step': step}
  return _read(workdir_lib.evaluation_config(workdir, overrides), workdir)


def _read(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Stored:
  validate.check_config(config)
  process = preprocessing.load(workdir / 'preprocessing.npz')
  with checkpoint.Checkpointer(workdir) as checkpointer:
    like = abstract_train_state(config)
    state, extra = checkpointer.restore(config.eval.step, like)
  process.check_digest(extra['preprocessing'])
  names = (workdir / 'class_names.txt').read_text().splitlines()
  # Which has a digest of every leaf and of the preprocessing.
  text = json.dumps(extra, sort_keys=True)
  return Stored(
    workdir,
    config,
    process,
    state.params,
    int(state.step),
    names,
    hashlib.sha256(text.encode()).hexdigest(),
  )


def _put(stored: Stored) -> Trained:
  config = stored.config
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  by_tower = tower_wise(config, abstract_train_state(config)).params
  params = plan.put_state(stored.params, by_tower)
  return Trained(**vars(stored) | {'params': params}, plan=plan)
