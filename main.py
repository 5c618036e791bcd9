"""Trains an AlexNet, or evaluates one of its checkpoints.

    python main.py --config=configs/alexnet.py --workdir=runs/alexnet
    python main.py --workdir=runs/alexnet --mode=eval --config.eval.views=10

Any field of the config can be given: `--config.batch_size=256`.
"""

import json
import os
import pathlib
import sys

# Before TensorFlow starts: it only reads images here, and need not say so.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import errors, evaluate, train
from alexnet_jax import workdir as workdir_lib

_CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='A file of configs/, optionally with :DATA.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.')


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; a mistake in it ends in one sentence."""
  try:
    arguments = flags.FLAGS(argv)
    if _CONFIG.value is not None:
      _CONFIG.value.lock()  # also reports a file that could not be loaded
  except errors.UserError as error:
    sys.exit(f'error: {error}')
  except (
    flags.Error,
    AttributeError,
    KeyError,
    ValueError,
    TypeError,
  ) as error:
    sys.exit(f'error: {_one_line(error)} (see --help).')
  except OSError as error:
    sys.exit(f'error: --config names no readable file ({_one_line(error)}).')
  return arguments


def _one_line(error: Exception) -> str:
  # Did-you-mean messages come quoted, with line breaks inside.
  text = str(error).replace('\\n', ' ').replace('\n', ' ')
  return text.strip('\'" ').replace("\\'", "'")


def _evaluate(workdir: pathlib.Path) -> None:
  overrides = (
    config_flags.get_override_values(flags.FLAGS['config'])
    if _CONFIG.value is not None
    else {}
  )
  config = workdir_lib.evaluation_config(workdir, overrides)
  print(json.dumps(evaluate.evaluate_run(config, workdir)))


def main(argv: list[str]) -> None:
  """Does what the flags say."""
  if len(argv) > 1:
    sys.exit(f'error: {argv[1]!r} is no flag; write it as --name=value.')
  if _WORKDIR.value is None:
    sys.exit('error: --workdir is missing; give the directory of the run.')
  if _CONFIG.value is None and _MODE.value == 'train':
    sys.exit('error: --config is missing; give a file of configs/.')
  tf.config.set_visible_devices([], 'GPU')
  workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
  logging.set_verbosity(logging.WARNING)
  try:
    if _MODE.value == 'eval':
      _evaluate(workdir)
    else:
      train.train_and_evaluate(_CONFIG.value, workdir)
  except errors.UserError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(main, flags_parser=_parse_flags)
