"""Prints a config's network: what each layer makes, and what it costs.

    python -m experiments.describe_network --config=configs/alexnet.py

For the paper's net: feature maps of 55, 27, 13, 13, 13 and, after the last
pool, 6 pixels a side; 60,965,224 parameters ("60 million", paper section 1).
"""

import functools

import jax
import numpy as np
from ml_collections import config_flags

from alexnet_jax import command_line, tables, train_state, validate
from alexnet_jax.models import alexnet

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/alexnet.py', 'A file of configs/, optionally with :DATA.'
)

_HEAD = ('layer', 'maps, one tower', 'output', 'parameters, all towers')


def layer_shapes(config) -> dict[str, dict[str, tuple[int, ...]]]:
  """Output shapes of one tower, without running the network.

  Returns:
    Layer -> {'maps': as the layer computes them, 'output': after its norms and
    pools}, without the batch axis.
  """
  size = config.data.crop_size
  model = train_state.create_model(config)
  state = train_state.abstract_train_state(config)
  apply = functools.partial(
    model.apply, capture_intermediates=True, mutable=['intermediates']
  )
  images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  _, captured = jax.eval_shape(apply, {'params': state.params}, images)
  shapes = captured['intermediates']

  def first(tree) -> tuple[int, ...]:
    return jax.tree.leaves(tree)[0].shape[1:]

  return {
    name: {
      'maps': first(shapes[name]),
      'output': first(shapes[f'{name}_output']),
    }
    for name in alexnet.layer_table(config.model)
  }


def describe(config) -> str:
  """A Markdown table of the config's network."""
  params = train_state.abstract_train_state(config).params
  rows = []
  for name, shapes in layer_shapes(config).items():
    count = sum(x.size for x in jax.tree.leaves(params[name]))
    sides = [' x '.join(map(str, shapes[k])) for k in ('maps', 'output')]
    rows.append((name, *sides, f'{count:,}'))
  total = sum(x.size for x in jax.tree.leaves(params))
  rows.append(('total', '', '', f'{total:,}'))
  return tables.markdown(_HEAD, rows, 'lllr')


def main(_) -> None:
  """Prints the table."""
  validate.check_config(_CONFIG.value)
  print(describe(_CONFIG.value))


if __name__ == '__main__':
  command_line.run(main)
