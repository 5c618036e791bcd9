"""The small files of a run's directory, and the lock on it.

preprocessing.npz, class_names.txt   written before step 0, never again
data.json                            info.json of the prepared set
environment.json                     versions and machine of every start
config.json                          written last: its presence says that
                                     the directory holds a run
"""

import contextlib
import datetime
import json
import pathlib
from collections.abc import Iterator

import ml_collections
from flax import traverse_util

from alexnet_jax import atomic, errors, locks, multihost, paths
from alexnet_jax import config as config_lib
from alexnet_jax.data import preprocessing, records
from alexnet_jax.workdir import environment


def flatten_config(config: dict) -> dict[str, object]:
  """Returns the fields of a config by name, as 'data.dir'."""
  return traverse_util.flatten_dict(config, sep='.')


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
  """Makes the directory and keeps other runs from training in it.

  Raises:
    UserError: If another process trains there.
  """
  if not multihost.is_primary():
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  with (workdir / 'train.lock').open('w') as file:
    if not locks.take(file, wait=False):
      raise errors.UserError(
        f'workdir={workdir}: another process trains there; wait for its end, '
        'or give a new workdir.'
      )
    with locks.lease(workdir / 'train.lease'):
      yield


# Fields of older configs that no longer exist.
_RETIRED = (
  'checks',
  'schedule.bias_drops',
  'schedule.biases_drop_alike',
)


def read_preprocessing(
  workdir: pathlib.Path,
) -> preprocessing.Preprocessing | None:
  """Returns the preprocessing of the run in a directory, None without a run."""
  if not (workdir / 'config.json').exists():
    return None
  return preprocessing.load(workdir / 'preprocessing.npz')


def start(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  data: records.PreparedSet,
  inputs: preprocessing.Preprocessing,
) -> preprocessing.Preprocessing:
  """Sets up the directory of a new run, or checks that an old one may go on.

  Of several processes, the primary one writes.

  Args:
    workdir: Absolute path of the run.
    config: Config of the run.
    data: Prepared set that it trains on.
    inputs: Preprocessing of a new run.

  Returns:
    The preprocessing that all processes and all starts of the run share.

  Raises:
    UserError: If the directory holds a run of another config or other data.
  """
  if multihost.is_primary():
    stored = _read_config(workdir)
    if stored is None:
      _check_new(workdir)
      write_inputs(workdir, inputs, data.class_names)
      _write_json(workdir / 'data.json', data.info)
    else:
      _check_same(stored, config)
      _check_data(workdir, data)
    write_config(workdir, config, {'warnings': data.warnings()})
    inputs = preprocessing.load(workdir / 'preprocessing.npz')
  return multihost.broadcast(inputs)


def _check_new(workdir: pathlib.Path) -> None:
  if newest_step(workdir) is not None:
    raise errors.UserError(
      f'workdir={workdir} has checkpoints but no config.json; put that file '
      'back, or give a new workdir.'
    )


def _check_same(stored: dict, config: ml_collections.ConfigDict) -> None:
  old, new = (
    flatten_config(stored),
    flatten_config(json.loads(config.to_json())),
  )
  schedules = (config.schedule.name, config.schedule.biases.name)
  changed = [
    f'{name}: {old.get(name)!r} -> {new.get(name)!r}'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
    and not config_lib.is_resumable(name, *schedules)
  ]
  if changed:
    raise errors.UserError(
      f'workdir holds a run of another config ({"; ".join(changed)}); give '
      'that config again, or a new workdir.'
    )


def _check_data(workdir: pathlib.Path, data: records.PreparedSet) -> None:
  if not (workdir / 'data.json').exists():
    raise errors.UserError(
      f'{workdir} holds imported weights; give a new workdir and train from '
      f'them with --config.init_from={workdir}.'
    )
  if _read_json(workdir / 'data.json') != data.info:
    raise errors.UserError(
      f'{data.directory} is not the data that {workdir} was trained on so '
      'far (see its data.json); give the data.dir of that set.'
    )


def write_inputs(
  workdir: pathlib.Path,
  inputs: preprocessing.Preprocessing,
  class_names: list[str],
) -> None:
  """Writes the preprocessing and the names of the classes."""
  workdir.mkdir(parents=True, exist_ok=True)
  inputs.save(workdir / 'preprocessing.npz')
  names = '\n'.join(class_names) + '\n'
  atomic.write_text(workdir / 'class_names.txt', names)


def write_config(
  workdir: pathlib.Path,
  config: ml_collections.ConfigDict,
  about: dict[str, object],
) -> None:
  """Writes environment.json and then, as the last file, config.json.

  Args:
    workdir: Absolute path of the run.
    config: Config of the run.
    about: Further entries of environment.json.
  """
  path = workdir / 'environment.json'
  earlier = _read_json(path) if path.exists() else {}
  starts = earlier.pop('earlier_starts', [])
  _write_json(
    path,
    {
      'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      **environment.describe(),
      **about,
      'earlier_starts': [*starts, earlier] if earlier else [],
    },
  )
  _write_json(workdir / 'config.json', json.loads(config.to_json()))


def _write_json(path: pathlib.Path, value: dict) -> None:
  atomic.write_text(path, json.dumps(value, indent=2) + '\n')


def _read_json(path: pathlib.Path) -> dict:
  remedy = 'put that file back, or give a new workdir'
  with errors.damage_as_user_error(path, remedy):
    return dict(json.loads(path.read_text()))


def _read_config(workdir: pathlib.Path) -> dict | None:
  """Returns the config of a run, with defaults for fields it is older than."""
  path = workdir / 'config.json'
  if not path.exists():
    return None
  stored = traverse_util.flatten_dict(
    _read_json(path), keep_empty_nodes=True, sep='.'
  )
  defaults = flatten_config(json.loads(config_lib.base().to_json()))
  layers = stored.get('model.layers', [])[:-1]
  defaults |= {f'model.{name}.keep': 0.0 for name in layers}
  if stored.get('model.name', 'alexnet') != 'alexnet':
    defaults = {k: v for k, v in defaults.items() if not k.startswith('model.')}
  for name in _RETIRED:
    stored.pop(name, None)
  return traverse_util.unflatten_dict(defaults | stored, sep='.')


def newest_step(workdir: pathlib.Path) -> int | None:
  """Returns the step of the newest checkpoint, or None if there is none."""
  # A checkpoint that was being replaced when the process died counts as well.
  paths = workdir.glob('checkpoints/*')
  names = [path.name.removesuffix('.replaced') for path in paths]
  return max((int(name) for name in names if name.isdecimal()), default=None)


def read_config(workdir: pathlib.Path | str) -> ml_collections.ConfigDict:
  """Returns the config of a run.

  Raises:
    UserError: If there is no run.
  """
  stored = _read_config(paths.of_run('workdir', workdir))
  if stored is None:
    raise errors.UserError(
      f'workdir={workdir} holds no run (no config.json); give the workdir of '
      'a run, or train one first.'
    )
  return ml_collections.ConfigDict(stored)


def fields_of_effect(workdir: pathlib.Path | str) -> dict[str, object]:
  """Returns the config's fields that results depend on, as 'data.name'.

  Raises:
    UserError: If there is no run.
  """
  fields = flatten_config(read_config(workdir).to_dict())
  return {k: v for k, v in fields.items() if k not in config_lib.WITHOUT_EFFECT}


def evaluation_config(
  workdir: pathlib.Path, overrides: dict[str, object]
) -> ml_collections.ConfigDict:
  """Returns the run's own config with what evaluation may change.

  Args:
    workdir: Directory of a run.
    overrides: Fields given on the command line.

  Raises:
    UserError: If there is no run, or a field may not be given.
  """
  config = read_config(workdir)
  config.num_devices = 0  # those of this machine, not of the run's
  config.data.workers = 0
  config.profile_steps = 0
  for name, value in overrides.items():
    if not config_lib.is_evaluable(name):
      raise errors.UserError(
        f'--config.{name}={value} has no place in --mode=eval, which takes '
        'the model from the workdir; only eval.* and '
        f'{", ".join(config_lib.OF_EVALUATION)} may be given.'
      )
    config.update_from_flattened_dict({name: value})
  if 'batch_size' in overrides:  # as given, not in the parts of training
    config.accumulate_steps = 1
  return config
