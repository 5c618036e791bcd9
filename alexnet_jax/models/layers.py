"""Parts of the networks: norms, pools and tower-wise layers.

The functions act on one tower, an array [N, H, W, C]. The modules act on the
list of towers that this device holds. Their parameters have a leading tower
axis, so that a checkpoint does not depend on how towers were spread.

Formulas and sizes are those of the paper's section 3, of its source of 2012
(CHM: github.com/computerhistory/AlexNet-Source-Code) and of its public sibling
cuda-convnet (CC1). Functions written for speed equal the plain formulas of the
same name in `tests/reference.py`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax import errors

Towers = list[jax.Array]
Initializer = Callable[..., jax.Array]

ACTIVATIONS = {
  'relu': nn.relu,
  'relu6': nn.relu6,  # min(max(x, 0), 6)
  'tanh': nn.tanh,
  'abs_tanh': lambda x: abs(nn.tanh(x)),  # Jarrett et al., paper section 3.1
  'hard_tanh': nn.hard_tanh,
  'sigmoid': nn.sigmoid,
  'linear': lambda x: x,
}

# Windows of a response norm: pairs (axis, size). Sums are over their product.
Windows = tuple[tuple[int, int], ...]


def _window_sum(x: jax.Array, windows: Windows, mirrored: bool) -> jax.Array:
  """Returns sums of `size` neighbours along each axis, with zeros outside.

  The window of element i starts at i - size // 2. `mirrored` gives the
  transpose, which differs for even sizes.
  """
  for axis, size in windows:
    before, after = size // 2, size - 1 - size // 2
    padding = [(0, 0)] * x.ndim
    padding[axis] = (after, before) if mirrored else (before, after)
    padded, length = jnp.pad(x, padding), x.shape[axis]
    x = sum(
      lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size)
    )
  return x


def at_least_float32(x: jax.Array) -> jax.Array:
  """Returns an array in float32, or in its own type if that is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_side(x: jax.Array, needed: int, reader: str) -> None:
  """Checks that maps are large enough for what reads them.

  Args:
    x: [N, H, W, C], maps.
    needed: Smallest side in pixels.
    reader: Name of the field or of the layer that reads the maps.

  Raises:
    UserError: If they are too small.
  """
  side = min(x.shape[1:3])
  if side < needed:
    raise errors.UserError(
      f'data.crop_size is too small for this network: {reader} needs maps of '
      f'{needed} pixels and gets {side}; give larger images.'
    )


def _power(x: jax.Array, beta: float) -> jax.Array:
  """Returns x^beta; for the paper's .75, two square roots are faster."""
  if beta == 0.75:
    root = jnp.sqrt(x)
    return root * jnp.sqrt(root)
  return x**beta


def _inverse_power(x: jax.Array, beta: float) -> jax.Array:
  """Returns x^-beta; for the paper's .75, two square roots are faster."""
  if beta == 0.75:
    root = lax.rsqrt(x)
    return root * jnp.sqrt(root)
  return x**-beta


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _response_norm(
  x: jax.Array, windows: Windows, k: float, coefficient: float, beta: float
) -> jax.Array:
  """Returns x / (k + coefficient * sum of squares over the windows)^beta."""
  return _response_norm_forward(x, windows, k, coefficient, beta)[0]


def _response_norm_forward(x, windows, k, coefficient, beta):
  wide = at_least_float32(x)
  sums = _window_sum(wide * wide, windows, mirrored=False)
  denominator = k + coefficient * sums
  # A quotient here and a product in the backward pass: if they were alike, XLA
  # would keep the powers in memory between the two.
  y = wide / _power(denominator, beta)
  return y.astype(x.dtype), (x, denominator)


def _response_norm_backward(windows, k, coefficient, beta, saved, gradient):
  # Every x_j is in the denominators of all windows that hold j. Two window sums
  # replace autodiff's chain of slices, pads and powers.
  del k
  x, denominator = saved
  wide = at_least_float32(x)
  scaled = gradient * _inverse_power(denominator, beta)
  inner = _window_sum(scaled * wide / denominator, windows, mirrored=True)
  return ((scaled - 2 * beta * coefficient * wide * inner).astype(x.dtype),)


_response_norm.defvjp(_response_norm_forward, _response_norm_backward)


def local_response_norm(
  x: jax.Array, *, n: int, k: float, alpha: float, beta: float
) -> jax.Array:
  """Returns a_i / (k + alpha * sum of a_j^2 over n channels around i)^beta.

  (Paper section 3.3; for even n the window reaches one further down, CC1.)

  Args:
    x: [N, H, W, C], channels of one tower (windows do not cross towers).
    n: Channels in a window.
    k: Constant that keeps the denominator away from zero.
    alpha: Coefficient of the sum. For the source's form, the caller has
      divided its `scale` by n (CHM layer.py).
    beta: Exponent.

  Returns:
    [N, H, W, C].
  """
  return _response_norm(x, ((3, n),), k, alpha, beta)


def spatial_response_norm(
  x: jax.Array, *, size: int, k: float, scale: float, beta: float
) -> jax.Array:
  """Returns x / (k + scale / size^2 * sum of squares, same map)^beta.

  The sum is over size x size places: `rnorm` of CC1. The paper's net has one
  after LRN2, which the paper does not mention.
  """
  return _response_norm(x, ((1, size), (2, size)), k, scale / size**2, beta)


def count_windows(length: int, size: int, stride: int, ceil: bool) -> int:
  """Returns how many windows fit; with `ceil`, the last may be cut off."""
  if ceil:
    return -(-(length - size) // stride) + 1
  return (length - size) // stride + 1


@dataclasses.dataclass(frozen=True)
class _PoolGeometry:
  """Pooling as size * size strided slices, one for each place in a window.

  XLA's own backward passes of pooling (select-and-scatter, and a dilated
  window sum) are several times slower on CPUs.

  Attributes:
    size: Side of a window.
    stride: Cells from window to window.
    cells: Height and width of the input.
    counts: Windows over height and width.
  """

  size: int
  stride: int
  cells: tuple[int, int]
  counts: tuple[int, int]

  def _padding(self, sign: int) -> list[tuple[int, int, int]]:
    """Returns the padding to all cells that windows cover.

    It is negative where a remainder is dropped. A sign of -1 undoes it.
    """
    ends = [
      (count - 1) * self.stride + self.size - cells
      for count, cells in zip(self.counts, self.cells, strict=True)
    ]
    return [(0, 0, 0), *((0, sign * end, 0) for end in ends), (0, 0, 0)]

  def slices(self, x: jax.Array, fill: float) -> list[jax.Array]:
    """Returns each place's values in all windows: arrays [N, H', W', C]."""
    x = lax.pad(x, jnp.asarray(fill, x.dtype), self._padding(1))
    return place_slices(x, self.size, self.stride, self.counts)

  def scatter(self, shares: Iterable[jax.Array]) -> jax.Array:
    """Sums each place's share into the input: the transpose of `slices`."""

    def spread(share: jax.Array, i: int, j: int) -> jax.Array:
      last = self.size - 1
      rows = (i, last - i, self.stride - 1)
      columns = (j, last - j, self.stride - 1)
      padding = ((0, 0, 0), rows, columns, (0, 0, 0))
      return lax.pad(share, jnp.zeros((), share.dtype), padding)

    pairs = zip(shares, _places(self.size), strict=True)
    total = _stored(sum(spread(share, i, j) for share, (i, j) in pairs))
    return lax.pad(total, jnp.zeros((), total.dtype), self._padding(-1))


def _places(size: int) -> list[tuple[int, int]]:
  """Returns (row, column) of the cells of a window, in row order."""
  return list(itertools.product(range(size), repeat=2))


def place_slices(
  x: jax.Array, size: int, stride: int, counts: tuple[int, int]
) -> list[jax.Array]:
  """Returns each place's values in all windows: arrays [N, H', W', C]."""
  rows, columns = [(n - 1) * stride + 1 for n in counts]
  return [
    x[:, i : i + rows : stride, j : j + columns : stride]
    for i, j in _places(size)
  ]


def _stored(x: jax.Array) -> jax.Array:
  """Keeps XLA from computing an array again in each operation that reads it.

  It works on CPUs with the compiler options of `parallel`; elsewhere it may do
  nothing.
  """
  return lax.optimization_barrier(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, geometry: _PoolGeometry) -> jax.Array:
  return functools.reduce(jnp.maximum, geometry.slices(x, -jnp.inf))


def _max_pool_forward(x, geometry):
  # The first maximum in row order wins, as in reduce_window.
  maxima, *others = geometry.slices(x, -jnp.inf)
  # A smaller type takes longer on CPUs.
  winner = jnp.zeros(maxima.shape, jnp.int32)
  for place, values in enumerate(others, 1):
    winner = jnp.where(values > maxima, place, winner)
    maxima = jnp.maximum(values, maxima)
  return maxima, _stored(winner)


def _max_pool_backward(geometry, winner, gradient):
  gradient = _stored(gradient)
  shares = [
    jnp.where(winner == place, gradient, 0) for place in range(geometry.size**2)
  ]
  return (geometry.scatter(shares),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _avg_pool(x: jax.Array, geometry: _PoolGeometry) -> jax.Array:
  wide = at_least_float32(x)
  mean = sum(geometry.slices(wide, 0)) / _areas(geometry, wide.dtype)
  return mean.astype(x.dtype)


def _areas(geometry: _PoolGeometry, dtype: jnp.dtype) -> jax.Array:
  """Returns how many cells of each window lie inside: [1, H', W', 1]."""
  return sum(geometry.slices(jnp.ones((1, *geometry.cells, 1), dtype), 0))


def _avg_pool_backward(geometry, _, gradient):
  wide = at_least_float32(gradient)
  share = _stored(wide / _areas(geometry, wide.dtype))
  return (geometry.scatter([share] * geometry.size**2).astype(gradient.dtype),)


_avg_pool.defvjp(
  lambda x, geometry: (_avg_pool(x, geometry), None), _avg_pool_backward
)


def pool(
  x: jax.Array, kind: str, *, size: int, stride: int, ceil: bool
) -> jax.Array:
  """Pools over size x size windows, every `stride` cells.

  Args:
    x: [N, H, W, C].
    kind: 'max', or 'avg', which divides by the clipped window's area (CC1).
    size: Side of a window; windows overlap if it is larger than `stride`
      (paper section 3.4).
    stride: Cells from window to window.
    ceil: Whether a last window that hangs over the edge counts (CHM); if not,
      the remainder is dropped.

  Returns:
    [N, H', W', C].
  """
  cells = x.shape[1:3]
  counts = tuple(count_windows(n, size, stride, ceil) for n in cells)
  geometry = _PoolGeometry(size, stride, cells, counts)
  return {'max': _max_pool, 'avg': _avg_pool}[kind](x, geometry)


# With fewer channels, a convolution leaves vector units idle.
_ENOUGH_CHANNELS = 8


def convolve_towers(
  towers: Towers, kernels: jax.Array, stride: int, padding: tuple[int, int]
) -> Towers:
  """Returns each tower's convolution, of [N, H, W, C] by [T, k, k, C, F].

  Towers that read the same array are computed as one convolution, which is
  wider and so faster. Other towers have one each, which XLA runs faster than a
  grouped convolution.
  """
  x = towers[0]
  enough_channels = x.shape[-1] >= _ENOUGH_CHANNELS
  function = convolve if enough_channels else space_to_depth_convolve
  if _is_shared(towers):
    kernel = jnp.concatenate(list(kernels), axis=-1)  # [k, k, C, T * F]
    return jnp.split(function(x, kernel, stride, padding), len(towers), axis=-1)
  return [
    function(x, kernel, stride, padding)
    for x, kernel in zip(towers, kernels, strict=True)
  ]


def _is_shared(towers: Towers) -> bool:
  """Returns whether all towers read the same array."""
  return len(towers) > 1 and all(other is towers[0] for other in towers)


def convolve(
  x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]
) -> jax.Array:
  """Convolves [N, H, W, C] with [k, k, C, F] to [N, H', W', F]."""
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=[padding, padding],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def space_to_depth_convolve(
  x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]
) -> jax.Array:
  """Does the same as `convolve`, as a convolution over blocks of pixels.

  A block of stride x stride pixels has stride^2 times as many channels. CPUs
  are slow at few of them: if `stride` is 1, 2 x 2 pixels give 2 x 2 outputs.
  """
  if stride == 1 and jax.default_backend() == 'cpu':
    size = kernel.shape[0]
    counts = [length + sum(padding) - size + 1 for length in x.shape[1:3]]
    more = (padding[0], padding[1] + 1)
    y = space_to_depth_convolve(x, _for_four_outputs(kernel), 2, more)
    return _depth_to_space(y, *counts)
  blocks = -(-kernel.shape[0] // stride)

  def fill(length: int) -> tuple[int, int, int]:
    """Returns the padding to whole blocks; a remainder is cut off."""
    places = (length + sum(padding) - kernel.shape[0]) // stride + 1
    return padding[0], (places + blocks - 1) * stride - length - padding[0], 0

  zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
  x = lax.pad(x, zero, (none, *map(fill, x.shape[1:3]), none))
  more = (0, blocks * stride - kernel.shape[0], 0)
  kernel = lax.pad(kernel, zero, (more, more, none, none))
  kernel = kernel.reshape(blocks, stride, blocks, stride, *kernel.shape[2:])
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)  # [b, b, s, s, C, F]
  kernel = kernel.reshape(blocks, blocks, -1, kernel.shape[-1])
  return convolve(_space_to_depth(x, stride), kernel, 1, (0, 0))


def _for_four_outputs(kernel: jax.Array) -> jax.Array:
  """Returns the kernel [k + 1, k + 1, C, 4 F] of 2 x 2 neighbouring outputs."""
  none = (0, 0)
  moved = [
    jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), none, none)) for i, j in _places(2)
  ]
  return jnp.concatenate(moved, axis=-1)


def convolve_locally(
  x: jax.Array,
  kernel: jax.Array,
  side: int,
  stride: int,
  padding: tuple[int, int],
) -> jax.Array:
  """Multiplies the patch at each place with that place's own filters.

  Patches are slices; `lax` gets them by a convolution with ones and zeros.

  Args:
    x: [N, H, W, C].
    kernel: [H', W', C * k * k, F], filters of every place, see `TowerLocal`.
    side: Side of the filters, k.
    stride: Pixels between places.
    padding: Zeros (top and left, bottom and right).

  Returns:
    [N, H', W', F].
  """
  x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
  places = place_slices(x, side, stride, kernel.shape[:2])
  patches = jnp.stack(places, axis=-1)  # [N, H', W', C, k * k]
  patches = patches.reshape(*patches.shape[:3], -1)
  return jnp.einsum('nhwp,hwpf->nhwf', patches, kernel)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds [C] to [N, H, W, C]; its backward pass sums by a product."""
  return x + bias


def _add_bias_backward(_, gradient):
  # The sum over each example's places is a product with ones, which on CPUs is
  # faster than a reduction.
  gradient = _stored(gradient)
  places = gradient.reshape(gradient.shape[0], -1, gradient.shape[-1])
  sums = jnp.einsum(
    'np,npc->nc',
    jnp.ones(places.shape[:2], places.dtype),
    places,
    precision=lax.Precision.HIGHEST,  # GPUs would round what they sum
    preferred_element_type=jnp.promote_types(places.dtype, jnp.float32),
  )
  return gradient, sums.sum(axis=0).astype(gradient.dtype)


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), None), _add_bias_backward)


def _space_to_depth(x: jax.Array, side: int) -> jax.Array:
  """Turns [N, H, W, C] into [N, H / side, W / side, side * side * C]."""
  n, height, width, channels = x.shape
  x = x.reshape(n, height // side, side, width // side, side, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, height // side, width // side, -1)


def _depth_to_space(x: jax.Array, height: int, width: int) -> jax.Array:
  """Turns [N, H, W, 2 * 2 * C] into [N, height, width, C]; the rest is cut."""
  n, rows, columns, _ = x.shape
  x = x.reshape(n, rows, columns, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, 2 * rows, 2 * columns, -1)[:, :height, :width]


class _TowerLayer(nn.Module):
  """A layer that maps each local tower with the tower's own parameters.

  Attributes:
    features: Output channels of one tower.
    kernel_init: Initializer of weights, called with the tower axis leading.
    bias_init: Initializer of biases.
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
  """Convolution of [N, H, W, C] to [N, H', W', features] in each tower.

  Attributes:
    kernel: Side of the filters.
    stride: Pixels between their places.
    padding: Zeros (top and left, bottom and right).
  """

  kernel: int = 3
  stride: int = 1
  padding: tuple[int, int] = (0, 0)

  @nn.compact
  def __call__(self, towers: Towers) -> Towers:
    x = towers[0]
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernels = self._kernels(towers, shape).astype(x.dtype)
    biases = self._biases(towers, (self.features,)).astype(x.dtype)
    outputs = convolve_towers(towers, kernels, self.stride, self.padding)
    return [add_bias(y, b) for y, b in zip(outputs, biases, strict=True)]


class TowerLocal(TowerConv):
  """Convolution without weight sharing: filters and biases of each position.

  (`local` of CC1.) Filters are stored [T, H', W', C * k * k, features], channel
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
    dtype = towers[0].dtype
    outputs = [
      convolve_locally(x, kernel, self.kernel, self.stride, self.padding)
      for x, kernel in zip(towers, kernels.astype(dtype), strict=True)
    ]
    return [y + b for y, b in zip(outputs, biases.astype(dtype), strict=True)]


def multiply_towers(towers: Towers, kernels: jax.Array) -> Towers:
  """Returns each tower's product, of [N, C] by [T, C, F].

  They are one batch of products; single ones would first copy their part of
  `kernels`.
  """
  return list(jnp.stack(towers) @ kernels)


class TowerDense(_TowerLayer):
  """Dense layer of [N, ...] to [N, features] in each tower."""

  @nn.compact
  def __call__(self, towers: Towers) -> Towers:
    inputs = [x.reshape(x.shape[0], -1) for x in towers]
    channels, dtype = inputs[0].shape[1], inputs[0].dtype
    kernels = self._kernels(towers, (channels, self.features)).astype(dtype)
    biases = self._biases(towers, (self.features,)).astype(dtype)
    outputs = multiply_towers(inputs, kernels)
    return [y + b for y, b in zip(outputs, biases, strict=True)]


class TowerDropout(nn.Module):
  """Dropout as in 2012: a 0/1 mask in training, times `keep` at evaluation.

  (CHM layer.cu.) The inverted form of Caffe and PyTorch divides the mask by
  `keep` in training and leaves evaluation alone. A mask depends on (seed,
  layer, tower, index of the example in the run), never on the device that draws
  it, hence not `nn.Dropout`.

  Attributes:
    keep: Probability that a unit stays.
    inverted: Whether to use the inverted form.
    whole_example: Whether all units of an example stay or go together, as in
      stochastic depth.
  """

  keep: float
  inverted: bool = False
  whole_example: bool = False

  @nn.compact
  def __call__(
    self,
    towers: Towers,
    tower_ids: Sequence[jax.Array | int],
    index: jax.Array | None,
    train: bool,
  ) -> Towers:
    if not train:
      return [x if self.inverted else x * self.keep for x in towers]
    layer_key = self.make_rng('dropout')  # flax folds in the layer's name
    return [
      x * self._mask(jax.random.fold_in(layer_key, tower), index, x)
      for x, tower in zip(towers, tower_ids, strict=True)
    ]

  def _mask(self, key: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
    shape = (1,) * (x.ndim - 1) if self.whole_example else x.shape[1:]

    def draw(i: jax.Array) -> jax.Array:
      return jax.random.bernoulli(jax.random.fold_in(key, i), self.keep, shape)

    mask = jax.vmap(draw)(index).astype(x.dtype)
    return mask / self.keep if self.inverted else mask
