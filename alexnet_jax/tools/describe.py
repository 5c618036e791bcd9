"""Prints a config's network: what each layer makes, and its parameters.

    python -m alexnet_jax.tools.describe --config=configs/alexnet.py

For the paper's net: feature maps of 55, 27, 13, 13, 13 and, after the last
pool, 6 pixels a side; 60,965,224 parameters ("60 million", paper section 1).
"""

import functools

import jax
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, train_step, validate
from alexnet_jax.models import alexnet
from alexnet_jax.tools import tables

_HEAD = ('layer', 'maps, one tower', 'output', 'parameters, all towers')


def layer_shapes(
  config: ml_collections.ConfigDict,
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
  """Returns the shapes that each layer makes in one tower, without a batch.

  A layer has two: its maps as computed, and its output after norms and pools.
  """
  size = config.data.crop_size
  model = train_step.create_model(config)
  params = train_step.abstract_train_state(config).params
  apply = functools.partial(
    model.apply, capture_intermediates=True, mutable=['intermediates']
  )
  images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  _, kept = jax.eval_shape(apply, {'params': params}, images)

  def shape(name: str) -> tuple[int, ...]:
    return jax.tree.leaves(kept['intermediates'][name])[0].shape[1:]

  table = alexnet.layer_table(config.model)
  return {name: (shape(name), shape(f'{name}_output')) for name in table}


def describe(config: ml_collections.ConfigDict) -> str:
  """Returns a Markdown table of the config's network."""
  params = train_step.abstract_train_state(config).params

  def count(tree) -> str:
    return f'{sum(x.size for x in jax.tree.leaves(tree)):,}'

  rows = [
    (
      name,
      *(' x '.join(map(str, shape)) for shape in both),
      count(params[name]),
    )
    for name, both in layer_shapes(config).items()
  ]
  rows.append(('total', '', '', count(params)))
  return tables.markdown(_HEAD, rows, 'lllr')


def define_flags() -> None:
  """Defines the flags of this tool."""
  config_flags.DEFINE_config_file(
    'config', 'configs/alexnet.py', 'A file of configs/, or FILE:DATA.'
  )


def main(_) -> None:
  """Prints the table."""
  validate.check_config(flags.FLAGS.config)
  print(describe(flags.FLAGS.config))


if __name__ == '__main__':
  command_line.run(main, define_flags)
