"""Fields and layers that the networks with one column share.

The methods make layers, so they may be called only inside a compact method.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from alexnet_jax import parallel
from alexnet_jax.models import batch_norm, convolution, layers


class OneTower(nn.Module):
  """A network with one column, or a part of it.

  A network is called as `AlexNet` is: with preprocessed images [N, H, W, C],
  the place of each example in the run [N] of uint32, and whether it trains. It
  returns the logits [N, num_classes], in float32.

  Attributes:
    config: `config.model`, frozen.
    towers: Towers of the plan; there is one.
  """

  config: ml_collections.FrozenConfigDict
  towers: parallel.LocalTowers | parallel.DeviceTowers

  def conv(
    self, name: str, x: jax.Array, features: int, kernel: int, **options
  ) -> jax.Array:
    """Convolves with kernel x kernel filters; `options` are those of Conv.

    By default it pads maps by kernel // 2 on all sides.
    """
    options = {'padding': kernel // 2, 'dtype': self.config.dtype} | options
    return convolution.Conv(features, kernel, **options, name=name)(x)

  def dense(
    self, name: str, x: jax.Array, features: int, **options
  ) -> jax.Array:
    """Maps [N, ...] to [N, features]; `options` are those of nn.Dense."""
    options = {'dtype': self.config.dtype} | options
    return nn.Dense(features, **options, name=name)(x.reshape(len(x), -1))

  def head(self, x: jax.Array, **options) -> jax.Array:
    """Returns the logits, in float32: rounded to bfloat16 they would tie."""
    classes = self.config.num_classes
    return self.dense('head', x, classes, dtype=jnp.float32, **options)

  def batch_norm(
    self, name: str, x: jax.Array, train: bool, **options
  ) -> jax.Array:
    """Normalises a batch; `options` are those of BatchNorm."""
    layer = batch_norm.BatchNorm(
      self.config.batch_norm, self.towers, **options, name=name
    )
    return layer(x, train)

  def dropout(
    self,
    name: str,
    x: jax.Array,
    keep: float,
    index: jax.Array | None,
    train: bool,
    *,
    whole_example: bool = False,
  ) -> jax.Array:
    """Applies inverted dropout, see `TowerDropout`."""
    layer = layers.TowerDropout(
      keep, inverted=True, whole_example=whole_example, name=name
    )
    return layer([x], [0], index, train)[0]


def max_pool(
  x: jax.Array,
  reader: str,
  *,
  size: int,
  stride: int,
  padding: int = 0,
  ceil: bool = False,
) -> jax.Array:
  """Pools as `layers.pool` does, after a check that windows fit.

  Args:
    x: [N, H, W, C].
    reader: Name of the pool, for the error.
    size: Side of a window.
    stride: Cells from window to window.
    padding: Cells around the maps that no window takes its maximum from.
    ceil: Whether a last window that hangs over the edge counts.

  Raises:
    UserError: If no window fits.
  """
  edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  x = jnp.pad(x, edges, constant_values=-jnp.inf)
  layers.check_side(x, size - (stride - 1 if ceil else 0), reader)
  return layers.pool(x, 'max', size=size, stride=stride, ceil=ceil)
