"""What the programs that draw a run's figures share."""

import os
import pathlib
from collections.abc import Callable

# Before TensorFlow starts: it only reads images here, and need not say so.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf
from absl import logging
from matplotlib import figure

from alexnet_jax import command_line, compilation_cache, errors, trained
from alexnet_jax.figures import picture
from experiments import network_flags


def main(
  draw: Callable[[trained.Trained, list[str]], figure.Figure],
  default: str,
  argv: list[str],
) -> None:
  """Loads --workdir, draws it and writes --output.

  Args:
    draw: of the run and the arguments that are no flags.
    default: what --output is where it is not given.
    argv: of the program.
  """
  tf.config.set_visible_devices([], 'GPU')
  logging.set_verbosity(logging.WARNING)
  with command_line.one_sentence():
    if not network_flags.WORKDIR.value:
      raise errors.UserError("--workdir is missing; give the run's directory.")
    output = pathlib.Path(network_flags.OUTPUT.value or default)
    picture.check_path(output)
    compilation_cache.enable()
    views = {'eval.views': int(network_flags.VIEWS.value)}
    overrides = network_flags.data_overrides() | views
    run = trained.load(network_flags.WORKDIR.value, overrides)
    picture.write(draw(run, argv[1:]), output)
    print(output)


def no_arguments(arguments: list[str]) -> None:
  """Raises UserError where there are any."""
  if arguments:
    raise errors.UserError(
      f'{arguments[0]} has no place here; everything is said by flags (--help).'
    )
