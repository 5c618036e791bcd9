"""The same networks in PyTorch, built from the same table of layers."""

import collections

import ml_collections
import torch
from torch import nn
from torch.nn import functional

from alexnet_jax.models import alexnet

_ACTIVATIONS = {'relu': nn.ReLU, 'tanh': nn.Tanh, 'sigmoid': nn.Sigmoid}


def build(config: ml_collections.ConfigDict, fast_lrn: bool) -> nn.Sequential:
  """The network of a config; towers are groups of convolutions.

  Response norms run over the channels of all towers, as a user of PyTorch
  would write them: the windows of a few channels at the towers' seam differ.

  Args:
    config: of the run.
    fast_lrn: `FastLRN` in place of `nn.LocalResponseNorm`.
  """
  model = config.model
  shape, blocks = (3, *[config.data.crop_size] * 2), collections.OrderedDict()
  for name, row in alexnet.layer_table(model).items():
    operations = [_operation(model, op, fast_lrn) for op in row.after]
    layer = _layer(model, name, row, shape)
    blocks[name] = nn.Sequential(*layer, *operations)
    with torch.no_grad():
      shape = blocks[name](torch.zeros(2, *shape)).shape[1:]
  return nn.Sequential(blocks)


def _layer(
  model: ml_collections.ConfigDict, name: str, row, shape: tuple[int, ...]
) -> list[nn.Module]:
  towers = 1 if row.kind == 'head' else model.towers
  if row.kind in ('dense', 'head'):
    inputs = torch.Size(shape).numel()
    features = (
      model.num_classes if row.kind == 'head' else row.features * towers
    )
    return [nn.Flatten(), nn.Linear(inputs, features)]
  before, after = row.padding
  pad = [] if before == after else [nn.ZeroPad2d((before, after) * 2)]
  padding = before if before == after else 0
  if row.kind == 'local':
    return [*pad, Local(shape, row.features, row.kernel, row.stride, padding)]
  reads_all = row.gather or name == model.layers[0]
  groups = 1 if reads_all else towers
  conv = nn.Conv2d(
    shape[0],
    row.features * towers,
    row.kernel,
    row.stride,
    padding,
    groups=groups,
  )
  return [*pad, conv]


def _operation(
  model: ml_collections.ConfigDict, operation: str, fast_lrn: bool
) -> nn.Module:
  if operation == 'act':
    return _ACTIVATIONS[model.activation]()
  if operation == 'dropout':
    return nn.Dropout(1 - model.keep)
  if operation == 'max_pool':
    pool = model.pool
    return nn.MaxPool2d(pool.size, pool.stride, ceil_mode=pool.ceil)
  if operation == 'avg_pool':
    pool = model.pool
    return nn.AvgPool2d(
      pool.size, pool.stride, ceil_mode=pool.ceil, count_include_pad=False
    )
  if operation == 'spatial_norm':
    return SpatialNorm(**model.spatial_norm)
  lrn = model.lrn
  # PyTorch divides alpha by the size of the window.
  alpha = lrn.alpha * (1 if lrn.alpha_over_n else lrn.n)
  norm = FastLRN if fast_lrn else nn.LocalResponseNorm
  return norm(lrn.n, alpha, lrn.beta, lrn.k)


class Local(nn.Module):
  """A convolution without weight sharing: unfolded, then a product a place."""

  def __init__(self, shape, features, kernel, stride, padding):
    """Takes the geometry of `alexnet_jax.models.layers.TowerLocal`."""
    super().__init__()
    channels, height, width = shape
    self._unfold = nn.Unfold(kernel, stride=stride, padding=padding)
    self._side = (height + 2 * padding - kernel) // stride + 1
    places, patch = self._side**2, channels * kernel**2
    self.weight = nn.Parameter(0.01 * torch.randn(places, patch, features))
    self.bias = nn.Parameter(torch.zeros(places, 1, features))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, features, H', W']."""
    patches = self._unfold(x).permute(2, 0, 1)  # [H' W', N, C k k]
    y = torch.baddbmm(self.bias, patches, self.weight)
    return y.permute(1, 2, 0).unflatten(2, (self._side, self._side))


class SpatialNorm(nn.Module):
  """x / (k + scale / size^2 * sum of squares, size x size, same map)^beta."""

  def __init__(self, size, k, scale, beta):
    """Takes the fields of `config.model.spatial_norm`."""
    super().__init__()
    self._size, self._k, self._scale, self._beta = size, k, scale, beta

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> the same."""
    padding = self._size // 2
    mean = functional.avg_pool2d(x * x, self._size, 1, padding)
    return x * (self._k + self._scale * mean) ** -self._beta


class _FastLRN(torch.autograd.Function):
  """Window sums as a product with a band matrix; a backward pass of its own."""

  @staticmethod
  def forward(ctx, x, band, k, beta):
    denominator = k + functional.conv2d(x * x, band)
    y = x * _inverse_power(denominator, beta)
    ctx.save_for_backward(x, denominator, band)
    ctx.beta = beta
    return y

  @staticmethod
  def backward(ctx, gradient):
    x, denominator, band = ctx.saved_tensors
    scaled = gradient * _inverse_power(denominator, ctx.beta)
    # The band holds the coefficient; windows are symmetric.
    inner = functional.conv2d(scaled * x / denominator, band)
    return scaled - 2 * ctx.beta * x * inner, None, None, None


def _inverse_power(x: torch.Tensor, beta: float) -> torch.Tensor:
  if beta == 0.75:
    root = torch.rsqrt(x)
    return root * torch.sqrt(root)
  return x**-beta


class FastLRN(nn.Module):
  """The fastest local response norm that we could write for PyTorch on CPUs."""

  def __init__(self, size, alpha, beta, k):
    """Takes the arguments of `nn.LocalResponseNorm`."""
    super().__init__()
    self._size, self._alpha, self._beta, self._k = size, alpha, beta, k
    self._band = None

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> the same."""
    if self._band is None:
      self._band = self._make_band(x)
    return _FastLRN.apply(x, self._band.to(x.dtype), self._k, self._beta)

  def _make_band(self, x: torch.Tensor) -> torch.Tensor:
    """[C, C, 1, 1]: alpha / size where two channels share a window."""
    channel = torch.arange(x.shape[1], device=x.device)
    near = (channel[:, None] - channel).abs() <= self._size // 2
    return near[..., None, None] * (self._alpha / self._size)
