"""Prints a config's network: what each layer makes, and what it costs.

    python -m alexnet_jax.tools.describe --config=configs/alexnet.py

For the paper's net: feature maps of 55, 27, 13, 13, 13 and, after the last
pool, 6 pixels a side; 60,965,224 parameters ("60 million", paper section 1),
and 724,406,816 multiply-adds for an image.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from absl import flags
from flax import traverse_util
from ml_collections import config_flags

from alexnet_jax import command_line, train_step, validate
from alexnet_jax.models import alexnet
from alexnet_jax.tools import tables

_HEAD = ('layer', 'maps, one tower', 'output', 'parameters, all towers')


def _apply(
  config: ml_collections.ConfigDict, capture: bool | Callable
) -> dict[str, Any]:
  """Returns the shapes that layers make of one image, by their names."""
  size = config.data.crop_size
  images = jax.ShapeDtypeStruct((1, size, size, config.data.channels), 'f4')
  program = functools.partial(
    train_step.create_model(config).apply,
    capture_intermediates=capture,
    mutable=['intermediates'],
  )
  variables = train_step.abstract_train_state(config).variables
  return jax.eval_shape(program, variables, images)[1]['intermediates']


def layer_shapes(
  config: ml_collections.ConfigDict,
) -> dict[str, list[tuple[int, ...]]]:
  """Returns the shapes that each layer makes in one tower, without a batch.

  A layer of AlexNet has two: its maps as computed, and its output after norms
  and pools. A layer of another network has its output alone.
  """
  if config.model.name != 'alexnet':
    return _outputs(config)
  kept = _apply(config, True)

  def shape(name: str) -> tuple[int, ...]:
    return jax.tree.leaves(kept[name])[0].shape[1:]

  table = alexnet.layer_table(config.model)
  return {name: [shape(name), shape(f'{name}_output')] for name in table}


def parameter_counts(config: ml_collections.ConfigDict) -> dict[str, int]:
  """Returns the number of parameters of each layer, in all towers."""
  params = train_step.abstract_train_state(config).params
  return {
    name: sum(leaf.size for leaf in jax.tree.leaves(layer))
    for name, layer in params.items()
  }


def describe(config: ml_collections.ConfigDict) -> str:
  """Returns a Markdown table of the config's network."""
  counts = parameter_counts(config)
  is_alexnet = config.model.name == 'alexnet'
  head = _HEAD if is_alexnet else ('layer', 'output', 'parameters')
  rows = [
    (
      name,
      *(' x '.join(map(str, shape)) for shape in made),
      f'{counts.get(name, 0):,}',
    )
    for name, made in layer_shapes(config).items()
  ]
  total = f'{sum(counts.values()):,}'
  rows.append(('total', *[''] * (len(head) - 2), total))
  return tables.markdown(head, rows, 'l' * (len(head) - 1) + 'r')


def _outputs(config: ml_collections.ConfigDict) -> dict[str, list[tuple]]:
  """Returns the shape that each layer of a network with one tower makes."""
  order = []

  def is_layer(module: nn.Module, _: str) -> bool:
    if len(module.path) == 1 and module.name not in order:
      order.append(module.name)
    return len(module.path) == 1

  kept = _apply(config, is_layer)
  return {name: [jax.tree.leaves(kept[name])[0].shape[1:]] for name in order}


def costs(config: ml_collections.ConfigDict) -> tuple[int, int]:
  """Returns the parameters and multiply-adds that make one image's logits.

  Those of auxiliary heads, which only training has, do not count. Nor do
  additions of biases, norms and pools.
  """
  params = train_step.abstract_train_state(config).params
  outputs = traverse_util.flatten_dict(_apply(config, True))
  num_params = num_products = 0
  for (*layer, leaf), x in traverse_util.flatten_dict(params).items():
    if (made := outputs.get((*layer, '__call__'))) is None:
      continue
    num_params += x.size
    if leaf == 'kernel':
      places = math.prod(jax.tree.leaves(made)[0].shape[1:-1])  # [1, H, W, C]
      row = config.model.get(layer[0], {})
      # A local layer has weights of its own for each place.
      num_products += x.size * (1 if row.get('kind') == 'local' else places)
  return num_params, num_products


def define_flags() -> None:
  """Defines the flags of this tool."""
  config_flags.DEFINE_config_file(
    'config', 'configs/alexnet.py', 'A file of configs/, or FILE:DATA.'
  )


def main(_) -> None:
  """Prints the table, and what an image costs."""
  config = flags.FLAGS.config
  validate.check_config(config)
  print(describe(config))
  print(f'\nAn image takes {costs(config)[1]:,} multiply-adds.')


if __name__ == '__main__':
  command_line.run(main, define_flags)
