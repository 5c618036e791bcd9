"""The formulas of `layers` as one would first write them.

Each function is what its namesake in `layers` has to equal. To measure what
that one gains, `experiments.benchmarks.tricks` puts this one in its place.
Backward passes are JAX's own.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models import layers


def convolve_towers(
  towers: layers.Towers,
  kernels: jax.Array,
  stride: int,
  padding: tuple[int, int],
) -> layers.Towers:
  """One convolution, with a group of channels for each tower."""
  count = len(towers)
  y = lax.conv_general_dilated(
    jnp.concatenate(towers, axis=-1),
    jnp.concatenate(list(kernels), axis=-1),
    window_strides=(stride, stride),
    padding=[padding, padding],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=count,
  )
  return jnp.split(y, count, axis=-1)


def convolve_locally(
  x: jax.Array,
  kernel: jax.Array,
  side: int,
  stride: int,
  padding: tuple[int, int],
) -> jax.Array:
  """[N, H, W, C] by [H', W', C * k * k, F] -> [N, H', W', F], JAX's own."""
  return lax.conv_general_dilated_local(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=[padding, padding],
    filter_shape=(side, side),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """[N, H, W, C] + [C]."""
  return x + bias


def multiply_towers(towers: layers.Towers, kernels: jax.Array) -> layers.Towers:
  """A product for each tower."""
  return [x @ kernels[t] for t, x in enumerate(towers)]


def local_response_norm(
  x: jax.Array, *, n: int, k: float, alpha: float, beta: float
) -> jax.Array:
  """b_i = a_i / (k + alpha * sum of a_j^2 over n channels around i)^beta."""
  return x / (k + alpha * _window_sum(x * x, (1, 1, 1, n))) ** beta


def spatial_response_norm(
  x: jax.Array, *, size: int, k: float, scale: float, beta: float
) -> jax.Array:
  """x / (k + scale / size^2 * sum of squares, size x size, same map)^beta."""
  sums = _window_sum(x * x, (1, size, size, 1))
  return x / (k + scale / size**2 * sums) ** beta


def _window_sum(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
  """From size // 2 places before each element on, zeros outside."""
  padding = [(size // 2, size - 1 - size // 2) for size in window]
  return lax.reduce_window(x, 0.0, lax.add, window, (1,) * x.ndim, padding)


def pool(
  x: jax.Array, kind: str, *, size: int, stride: int, ceil: bool
) -> jax.Array:
  """Maxima, or means over what the image holds, of size x size windows."""

  def overhang(length: int) -> tuple[int, int]:
    rest = (length - size) % stride
    return 0, stride - rest if ceil and rest else 0

  padding = ((0, 0), *map(overhang, x.shape[1:3]), (0, 0))
  reduce = functools.partial(
    lax.reduce_window,
    window_dimensions=(1, size, size, 1),
    window_strides=(1, stride, stride, 1),
    padding=padding,
  )
  if kind == 'max':
    return reduce(x, -jnp.inf, lax.max)
  return reduce(x, 0.0, lax.add) / reduce(jnp.ones_like(x), 0.0, lax.add)
