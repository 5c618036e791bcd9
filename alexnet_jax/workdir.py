"""What a run keeps in its directory beside checkpoints and metrics.

preprocessing.npz, class_names.txt   written before step 0, never again
data.json                            which data: the prepared set's info.json
environment.json                     of the latest start
config.json                          written last: its presence says that
                                     the directory holds a run
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator

import jax
import ml_collections
import tensorflow as tf
from flax import traverse_util

from alexnet_jax import config_fields, errors, git, hardware, hosts, locks
from alexnet_jax.data import preprocessing, records
from configs import common

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'array_record',
  'numpy',
)


def _flat(config: dict) -> dict[str, object]:
  """By name, as 'data.dir'."""
  return traverse_util.flatten_dict(config, sep='.')


def _check_same(stored: dict, config: ml_collections.ConfigDict) -> None:
  old, new = _flat(stored), _flat(json.loads(config.to_json()))
  schedule = config.schedule.name
  changed = [
    f'{name}: {old.get(name)!r} -> {new.get(name)!r}'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
    and not config_fields.is_resumable(name, schedule)
  ]
  if changed:
    raise errors.UserError(
      f'workdir holds a run of another config ({"; ".join(changed)}); give '
      'that config again, or a new workdir.'
    )


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other runs from training in a workdir, which is made.

  Raises:
    UserError: where one does.
  """
  if not hosts.is_first():
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / 'train.lock').open('w') as file:
    if not locks.take(file, wait=False):
      raise errors.UserError(
        f'workdir={workdir}: another process trains there; wait for its end, '
        'or give a new workdir.'
      )
    yield


def start(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  prepared: records.PreparedSet,
  process: preprocessing.Preprocessing | None,
) -> preprocessing.Preprocessing:
  """Sets up a new run's directory, or checks that it may go on.

  Of several processes, the first writes.

  Args:
    workdir: absolute path of the run.
    config: of the run.
    prepared: its data.
    process: for a new run; None to derive it from the data.

  Returns:
    The run's preprocessing.

  Raises:
    UserError: where the directory holds a run of another config.
  """
  if hosts.is_first():
    _write_or_check(workdir, config, prepared, process)
  hosts.wait('start of workdir')
  return preprocessing.load(workdir / 'preprocessing.npz')


def _write_or_check(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  prepared: records.PreparedSet,
  process: preprocessing.Preprocessing | None,
) -> None:
  stored = _read_config(workdir)
  if stored is None:
    process = process or preprocessing.from_statistics(prepared, config.data)
    workdir.mkdir(parents=True, exist_ok=True)
    write_inputs(workdir, process, prepared.class_names)
    _write_json(workdir / 'data.json', prepared.info)
  else:
    _check_same(stored, config)
    _check_data(workdir, prepared)
  write_config(workdir, config, {'warnings': prepared.warnings()})


def write_inputs(
  workdir: pathlib.Path,
  process: preprocessing.Preprocessing,
  class_names: list[str],
) -> None:
  """Writes what the network reads, and what its outputs are called."""
  process.save(workdir / 'preprocessing.npz')
  names = '\n'.join(class_names) + '\n'
  (workdir / 'class_names.txt').write_text(names)


def write_config(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  about: dict[str, object],
) -> None:
  """Writes environment.json, with what else there is to say `about` a run.

  Last, the config.
  """
  _write_json(workdir / 'environment.json', environment() | about)
  _write_json(workdir / 'config.json', json.loads(config.to_json()))


def _write_json(path: pathlib.Path, value: dict) -> None:
  new = path.with_suffix('.new')
  new.write_text(json.dumps(value, indent=2) + '\n')
  os.replace(new, path)


def _read_json(path: pathlib.Path) -> dict:
  remedy = 'put that file back, or give a new workdir'
  with errors.damage_as_user_error(path, remedy):
    return dict(json.loads(path.read_text()))


def _check_data(workdir: pathlib.Path, prepared: records.PreparedSet) -> None:
  if not (workdir / 'data.json').exists():
    raise errors.UserError(
      f'{workdir} holds imported weights; give a new workdir and train from '
      f'them with --config.init_from={workdir}.'
    )
  if _read_json(workdir / 'data.json') != prepared.info:
    raise errors.UserError(
      f'{prepared.directory} is not the data that {workdir} was trained on so '
      'far (see its data.json); give the data.dir of that set.'
    )


def _read_config(workdir: pathlib.Path) -> dict | None:
  """Of a run; fields that it is older than have their defaults."""
  path = workdir / 'config.json'
  if not path.exists():
    return None
  stored = traverse_util.flatten_dict(
    _read_json(path), keep_empty_nodes=True, sep='.'
  )
  defaults = _flat(json.loads(common.base().to_json()))
  return traverse_util.unflatten_dict(defaults | stored, sep='.')


def newest_step(workdir: pathlib.Path) -> int | None:
  """Of its checkpoints; None where there is none."""
  names = [path.name for path in workdir.glob('checkpoints/*')]
  return max((int(name) for name in names if name.isdecimal()), default=None)


def read_config(workdir: pathlib.Path | str) -> ml_collections.ConfigDict:
  """The config of a run.

  Raises:
    UserError: where there is no run.
  """
  stored = _read_config(pathlib.Path(workdir).expanduser())
  if stored is None:
    raise errors.UserError(
      f'workdir={workdir} holds no run (no config.json); give the workdir of '
      'a run, or train one first.'
    )
  return ml_collections.ConfigDict(stored)


def fields_of_effect(workdir: pathlib.Path | str) -> dict[str, object]:
  """What a run's results depend on: its config's fields, by name as 'data.dir'.

  Raises:
    UserError: where there is no run.
  """
  fields = _flat(read_config(workdir).to_dict())
  return {
    k: v for k, v in fields.items() if k not in config_fields.WITHOUT_EFFECT
  }


def evaluation_config(
  workdir: pathlib.Path, overrides: dict[str, object]
) -> ml_collections.ConfigDict:
  """The run's own config, with what evaluation may be told otherwise.

  Args:
    workdir: of a run.
    overrides: fields given on the command line.

  Raises:
    UserError: where there is no run, or a field may not be given.
  """
  config = read_config(workdir)
  config.num_devices = 0  # those of this machine, not of the run's
  config.data.workers = 0
  config.profile_steps = 0
  for name, value in overrides.items():
    if not config_fields.is_evaluable(name):
      raise errors.UserError(
        f'--config.{name}={value} has no place in --mode=eval, which takes '
        'the model from the workdir; only eval.* and '
        f'{", ".join(config_fields.OF_EVALUATION)} may be given.'
      )
    config.update_from_flattened_dict({name: value})
  return config


def environment() -> dict[str, object]:
  """Versions, machine, devices and commit that this process runs with."""
  return {
    'python': platform.python_version(),
    'platform': platform.platform(),
    **hardware.describe(),
    'packages': {
      **{name: importlib.metadata.version(name) for name in _PACKAGES},
      'tensorflow': tf.__version__,  # of either of its distributions
    },
    'devices': [f'{d.platform} {d.device_kind}' for d in jax.devices()],
    'git_commit': git.commit(),
  }
