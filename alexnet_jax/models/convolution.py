"""The convolution of the networks with one column, in forms that suit CPUs.

On CPUs XLA is slow at depthwise convolutions, and at those whose kernel is
larger than the map, such as 3x3 on 2x2 pixels. Here these are sums of products,
one for each place of the kernel. `experiments.benchmarks.step` measures what
that gains.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models import layers

# Zeros (before, after) the rows and the columns.
Padding = Sequence[tuple[int, int]]


class Conv(nn.Module):
  """Convolves [N, H, W, C] to [N, H', W', features]; as `nn.Conv` does.

  Attributes:
    features: Output channels.
    kernel: Side of the filters.
    stride: Pixels between their places.
    padding: Zeros on each side, or 'SAME' as in TensorFlow.
    depthwise: Whether each filter reads one channel, its own.
    use_bias: Whether a bias is added.
    dtype: Type that is computed in.
    kernel_init: Initializer of the filters [k, k, C, features].
    bias_init: Initializer of the biases.
  """

  features: int
  kernel: int
  stride: int = 1
  padding: int | str = 0
  depthwise: bool = False
  use_bias: bool = True
  dtype: str = 'float32'
  kernel_init: layers.Initializer = nn.initializers.lecun_normal()
  bias_init: layers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    sides = (self.kernel, self.kernel)
    channels = 1 if self.depthwise else x.shape[-1]
    kernel = self.param(
      'kernel', self.kernel_init, (*sides, channels, self.features)
    )
    padding = [(self.padding, self.padding)] * 2
    if self.padding == 'SAME':
      strides = (self.stride, self.stride)
      padding = lax.padtype_to_pads(x.shape[1:3], sides, strides, 'SAME')
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    y = _convolve(x, kernel, self.stride, padding)
    if not self.use_bias:
      return y
    bias = self.param('bias', self.bias_init, (self.features,))
    return y + bias.astype(self.dtype)


def _convolve(
  x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
  """Convolves [N, H, W, C] with [k, k, C, F] or, depthwise, [k, k, 1, C]."""
  if _is_slow(x, kernel):
    return _convolve_by_places(x, kernel, stride, padding)
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
  )


def _is_slow(x: jax.Array, kernel: jax.Array) -> bool:
  """Returns whether XLA's own convolution is far from what a CPU can do."""
  is_depthwise = kernel.shape[2] < x.shape[-1]
  is_larger_than_map = len(kernel) > min(x.shape[1:3])
  on_cpu = jax.default_backend() == 'cpu'
  return on_cpu and (is_depthwise or is_larger_than_map)


def _convolve_by_places(
  x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
  """Adds up what each place of the kernel reads, times its weights."""
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  counts = [(length - len(kernel)) // stride + 1 for length in x.shape[1:3]]
  places = layers.place_slices(x, len(kernel), stride, counts)
  weights = kernel.reshape(-1, *kernel.shape[2:])
  total = sum(
    _times(place, own) for place, own in zip(places, weights, strict=True)
  )
  return total.astype(x.dtype)


def _times(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns [N, H, W, C] times [C, F] or, map by map, times [1, C]."""
  if len(weights) < x.shape[-1]:
    return layers.at_least_float32(x * weights[0])
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.einsum('nhwc,cf->nhwf', x, weights, preferred_element_type=wide)
