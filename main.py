r"""Trains an AlexNet, or evaluates one of its checkpoints.

    python main.py --config=configs/alexnet.py --workdir=runs/alexnet
    python main.py --mode=eval --workdir=runs/alexnet \
        --config=configs/alexnet.py --config.eval.views=10

Any field of the config can be given, after --config: `--config.batch_size=256`.
"""

import json
import shlex

from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, errors, paths

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='A file of configs/, optionally with :DATA.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.')
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Several processes of a cluster that JAX knows: SLURM.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'Several processes anywhere: HOST:PORT of process 0.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Total number of processes.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Number of this process, from 0.'
)

# Evaluation takes nothing from its config but what flags change.
_ANY_CONFIG = 'configs/alexnet.py'


def _evaluate(name: str) -> None:
  from alexnet_jax import evaluate, multihost, trained
  from alexnet_jax.workdir import files

  overrides = {}
  if _CONFIG.value is not None:
    overrides = config_flags.get_override_values(flags.FLAGS['config'])
  directory, step = trained.split_name(name)
  workdir = paths.of_run('--workdir', directory)
  named = {} if step is None else {'eval.step': step}
  config = files.evaluation_config(workdir, overrides | named)
  _check_data(config.data.name, overrides)
  result = evaluate.evaluate_run(config, workdir)
  multihost.log(_other_views(name, overrides, config.eval.views))
  if multihost.is_primary():
    print(json.dumps(result))


def _check_data(name: str, overrides: dict[str, object]) -> None:
  """Raises UserError if --config=FILE:DATA names other data than the run's."""
  if _CONFIG.value is None or 'data.name' in overrides:
    return
  file = config_flags.get_config_filename(flags.FLAGS['config'])
  if ':' in file and _CONFIG.value.data.name != name:
    raise errors.UserError(
      f'--config={file} names other data than the run has, {name}; leave it '
      'out, or give --config.data.name=test=FOLDER to evaluate on pictures of '
      'the same classes.'
    )


def _other_views(name: str, overrides: dict[str, object], views: int) -> str:
  """Returns a sentence with the command for the other number of views."""
  other = 1 if views == 10 else 10
  flag = flags.FLAGS['config']
  file = config_flags.get_config_filename(flag) if flag.value else _ANY_CONFIG
  given = {**overrides, 'eval.views': other}
  fields = [f'--config.{field}={value}' for field, value in given.items()]
  command = ['main.py', '--mode=eval', f'--workdir={name}', f'--config={file}']
  text = shlex.join(['python', *command, *fields])
  return f'For {other} view{"s" if other > 1 else ""} of each image: {text}'


def _check_flags() -> None:
  if not _WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  if _CONFIG.value is None and _MODE.value == 'train':
    raise errors.UserError('--config is missing; give a file of configs/.')


def main(_) -> None:
  """Does what the flags say."""
  _check_flags()
  is_read = _MODE.value == 'eval'
  find = paths.local if is_read else paths.for_checkpoints
  workdir = find('--workdir', _WORKDIR.value)
  # Imported here, so that --help and mistakes do not wait for JAX.
  from alexnet_jax import multihost, train

  process = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  if _DISTRIBUTED.value or process != (None, None, None):
    multihost.initialize(*process)  # before JAX looks at its devices
  command_line.set_up_jax()
  with multihost.shared_fate():
    if is_read:
      _evaluate(_WORKDIR.value)
    else:
      train.train_and_evaluate(_CONFIG.value, workdir)


if __name__ == '__main__':
  command_line.run(main)
