"""Operations and bytes of a training step: what hardware has to do at least."""

import dataclasses
import math

import jax
import ml_collections

from alexnet_jax import train_state
from alexnet_jax.models import alexnet
from experiments import describe_network


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """A device's limits.

  Attributes:
    name: for the table.
    operations: multiplications and additions per second of its matrix units,
      by compute type.
    bandwidth: bytes per second of its memory.
    source: of these numbers.
  """

  name: str
  operations: dict[str, float]
  bandwidth: float
  source: str


H100 = Accelerator(
  name='one H100 SXM',
  operations={'TF32': 494.7e12, 'bfloat16': 989.4e12},
  bandwidth=3.35e12,
  source='NVIDIA H100 data sheet, dense (without sparsity)',
)
_BYTES = {'TF32': 4, 'bfloat16': 2}


def products(config: ml_collections.ConfigDict) -> dict[str, int]:
  """Multiply-adds of each layer for one image, forward, all towers."""
  params = train_state.abstract_train_state(config).params
  shapes = describe_network.layer_shapes(config)
  counts = {}
  for name, row in alexnet.layer_table(config.model).items():
    # Only a convolution uses its weights at several places.
    height, width = shapes[name]['maps'][:2] if row.kind == 'conv' else (1, 1)
    counts[name] = height * width * params[name]['kernel'].size
  return counts


def forward_operations(config: ml_collections.ConfigDict) -> int:
  """Operations of a forward pass for one image, a multiply-add as two."""
  return 2 * sum(products(config).values())


def train_operations(config: ml_collections.ConfigDict) -> int:
  """Operations of a training step for one image.

  Each layer's product is done for the outputs, for the weights' gradient and
  for the inputs' gradient, which the first layer does not need.
  """
  first, *_ = products(config).values()
  return 3 * forward_operations(config) - 2 * first


def activation_bytes(config: ml_collections.ConfigDict, size: int) -> int:
  """Bytes of maps that a step moves for one image, at `size` bytes a value.

  A layer writes its maps, and every operation after it reads and writes them
  once; a backward pass reads and writes about twice as much.
  """
  shapes = describe_network.layer_shapes(config)
  values = 0
  for name, row in alexnet.layer_table(config.model).items():
    towers = 1 if row.kind == 'head' else config.model.towers
    maps = towers * math.prod(shapes[name]['maps'])
    values += maps * (2 + 2 * len(row.after))
  return 3 * values * size


def parameter_bytes(config: ml_collections.ConfigDict) -> int:
  """Bytes of float32 parameters that a step moves, whatever the batch.

  Weights are read forward and backward, gradients written and read, weights
  and velocities read and written by the update.
  """
  params = train_state.abstract_train_state(config).params
  return 8 * 4 * sum(x.size for x in jax.tree.leaves(params))


def bounds(
  config: ml_collections.ConfigDict,
  batch_size: int,
  accelerator: Accelerator,
  dtype: str,
) -> dict[str, float]:
  """Least times of one step, in milliseconds.

  Returns:
    'compute' at the full rate of the matrix units, 'memory' at full bandwidth;
    'step', their sum, as where nothing overlaps.
  """
  operations = batch_size * train_operations(config)
  moved = batch_size * activation_bytes(config, _BYTES[dtype])
  moved += parameter_bytes(config)
  compute = 1e3 * operations / accelerator.operations[dtype]
  memory = 1e3 * moved / accelerator.bandwidth
  return {'compute': compute, 'memory': memory, 'step': compute + memory}
