"""What the network is made of: norms, pools and tower-wise layers.

The functions act on one tower, an array [N, H, W, C]. The modules act on the
list of towers that this device holds; their parameters have a leading tower
axis, so that a checkpoint does not depend on how towers were spread.

Formulas and sizes: paper section 3, and the source released in 2012 (CHM) with
its public sibling cuda-convnet (CC1).
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Towers = list[jax.Array]
Initializer = Callable[..., jax.Array]


def _window_sum(x: jax.Array, size: int, axis: int) -> jax.Array:
  """Sums of `size` neighbours from i - size // 2 on, zeros outside."""
  padding = [(0, 0)] * x.ndim
  padding[axis] = (size // 2, size - 1 - size // 2)
  padded = jnp.pad(x, padding)
  length = x.shape[axis]
  return sum(
    lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size)
  )


def local_response_norm(
  x: jax.Array, *, n: int, k: float, alpha: float, beta: float
) -> jax.Array:
  """b_i = a_i / (k + alpha * sum of a_j^2 over n channels around i)^beta.

  Paper section 3.3; for even n the window reaches one further down (CC1).

  Args:
    x: [N, H, W, C], the channels of one tower (windows do not cross towers).
    n: channels in a window.
    k: what keeps the denominator away from zero.
    alpha: coefficient of the sum. The 2012 source divides its `scale` by n
      before it gets here (CHM layer.py).
    beta: exponent.

  Returns:
    [N, H, W, C].
  """
  return x * (k + alpha * _window_sum(x * x, n, axis=3)) ** -beta


def spatial_response_norm(
  x: jax.Array, *, size: int, k: float, scale: float, beta: float
) -> jax.Array:
  """x / (k + scale / size^2 * sum of squares, size x size, same map)^beta.

  `rnorm` of CC1; the paper never mentions the one its net had after LRN2.
  """
  squares = _window_sum(_window_sum(x * x, size, axis=1), size, axis=2)
  return x * (k + scale / size**2 * squares) ** -beta


def _pool_padding(length: int, size: int, stride: int, ceil: bool) -> int:
  """Cells to add at the far end so that the last, clipped window counts."""
  if not ceil:
    return 0
  windows = -(-(length - size) // stride) + 1
  return max(0, (windows - 1) * stride + size - length)


def pool(
  x: jax.Array, kind: str, *, size: int, stride: int, ceil: bool
) -> jax.Array:
  """Pooling of [N, H, W, C] over size x size windows, every `stride` cells.

  Args:
    x: [N, H, W, C].
    kind: 'max', or 'avg', which divides by the clipped window's area (CC1).
    size: side of a window; larger than `stride` overlaps (paper section 3.4).
    stride: cells from window to window.
    ceil: whether a last window that hangs over the edge counts (CHM), or the
      remainder is dropped.

  Returns:
    [N, H', W', C].
  """
  padding = [
    (0, _pool_padding(length, size, stride, ceil)) for length in x.shape[1:3]
  ]
  if kind == 'max':
    return nn.max_pool(x, (size, size), (stride, stride), padding)
  return nn.avg_pool(
    x, (size, size), (stride, stride), padding, count_include_pad=False
  )


class _TowerLayer(nn.Module):
  """A layer that maps each local tower with its own parameters.

  Attributes:
    features: output channels of one tower.
    kernel_init: initializer of weights; called with the tower axis leading.
    bias_init: initializer of biases.
  """

  features: int
  kernel_init: Initializer
  bias_init: Initializer

  def _kernels(self, towers: Towers, shape: Sequence[int]) -> jax.Array:
    full_shape = (len(towers), *shape)
    return self.param('kernel', self.kernel_init, full_shape)

  def _biases(self, towers: Towers, shape: Sequence[int]) -> jax.Array:
    return self.param('bias', self.bias_init, (len(towers), *shape))


class TowerConv(_TowerLayer):
  """Convolution: [N, H, W, C] -> [N, H', W', features] in each tower.

  Each tower is a convolution of its own: XLA runs a grouped one slower.

  Attributes:
    kernel: side of the filters.
    stride: pixels between their places.
    padding: zeros (top and left, bottom and right).
  """

  kernel: int = 3
  stride: int = 1
  padding: tuple[int, int] = (0, 0)

  @nn.compact
  def __call__(self, towers: Towers) -> Towers:
    channels = towers[0].shape[-1]
    shape = (self.kernel, self.kernel, channels, self.features)
    kernels = self._kernels(towers, shape)  # [T, k, k, C, features]
    biases = self._biases(towers, (self.features,))
    return [
      self._convolve(x, kernels[t].astype(x.dtype)) + biases[t].astype(x.dtype)
      for t, x in enumerate(towers)
    ]

  def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=[self.padding, self.padding],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


class TowerLocal(TowerConv):
  """A convolution without weight sharing: own filters and bias a position.

  `local` of CC1. Filters are stored [T, H', W', C * k * k, features], channel
  by channel, rows before columns (`jax.lax.conv_general_dilated_local`).
  """

  @nn.compact
  def __call__(self, towers: Towers) -> Towers:
    _, height, width, channels = towers[0].shape
    positions = tuple(
      (length + sum(self.padding) - self.kernel) // self.stride + 1
      for length in (height, width)
    )
    patch = channels * self.kernel**2
    kernels = self._kernels(towers, (*positions, patch, self.features))
    biases = self._biases(towers, (*positions, self.features))
    return [
      self._convolve(x, kernels[t].astype(x.dtype)) + biases[t].astype(x.dtype)
      for t, x in enumerate(towers)
    ]

  def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated_local(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=[self.padding, self.padding],
      filter_shape=(self.kernel, self.kernel),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


class TowerDense(_TowerLayer):
  """Fully-connected layer: [N, ...] flattened -> [N, features] a tower."""

  @nn.compact
  def __call__(self, towers: Towers) -> Towers:
    inputs = [x.reshape(x.shape[0], -1) for x in towers]
    kernels = self._kernels(towers, (inputs[0].shape[1], self.features))
    biases = self._biases(towers, (self.features,))
    return [
      x @ kernels[t].astype(x.dtype) + biases[t].astype(x.dtype)
      for t, x in enumerate(inputs)
    ]


class TowerDropout(nn.Module):
  """Times a 0/1 mask in training, times `keep` at evaluation (CHM layer.cu).

  Not inverted, hence not `nn.Dropout`. A mask depends on (seed, layer, tower,
  index of the example in the run), never on the device that draws it.

  Attributes:
    keep: probability that a unit stays.
  """

  keep: float

  @nn.compact
  def __call__(
    self,
    towers: Towers,
    tower_ids: Sequence[jax.Array | int],
    index: jax.Array | None,
    train: bool,
  ) -> Towers:
    if not train:
      return [x * self.keep for x in towers]
    layer_key = self.make_rng('dropout')  # flax folds in the layer's name
    return [
      x * self._mask(jax.random.fold_in(layer_key, tower), index, x)
      for x, tower in zip(towers, tower_ids, strict=True)
    ]

  def _mask(self, key: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
    def draw(i: jax.Array) -> jax.Array:
      return jax.random.bernoulli(
        jax.random.fold_in(key, i), self.keep, x.shape[1:]
      )

    return jax.vmap(draw)(index).astype(x.dtype)
