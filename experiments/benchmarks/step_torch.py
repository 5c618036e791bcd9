"""The training step in PyTorch, in its usual modes.

All networks but ResNet-18 are built from the same table of layers.
"""

import collections
from collections.abc import Callable

import ml_collections
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from alexnet_jax.models import alexnet
from experiments.benchmarks import step_worker
from tests import torch_nets

_ACTIVATIONS = {
  'relu': lambda: nn.ReLU(inplace=True),
  'tanh': nn.Tanh,
  'sigmoid': nn.Sigmoid,
}


class Step:
  """A network's training step and forward pass on one batch.

  Args:
    config: Config of the network; `model.dtype` chooses autocast.
    batch: Result of `step_worker.random_batch`.
    mode: 'eager', 'channels_last', 'compile' (channels last as well) or 'CUDA
      graphs' (the same, replayed as a whole).
    fast_lrn: Whether the response norm is `FastLRN`.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    batch: dict,
    mode: str,
    fast_lrn: bool,
  ):
    torch.manual_seed(config.seed)
    # TF32 and a search for the fastest kernels, as JAX has them by default.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    is_eager = mode == 'eager'
    order = torch.contiguous_format if is_eager else torch.channels_last
    self._network = build(config, fast_lrn)
    self._network.to(self._device, memory_format=order)
    self._apply = {
      'compile': torch.compile,
      'CUDA graphs': lambda net: torch.compile(net, mode='reduce-overhead'),
    }.get(mode, lambda net: net)(self._network)
    images = np.ascontiguousarray(batch['image'].transpose(0, 3, 1, 2))
    images = torch.from_numpy(images).to(self._device)
    self._images = images.contiguous(memory_format=order)
    labels = torch.from_numpy(batch['label'].astype(np.int64))
    self._labels = labels.to(self._device)
    self._bfloat16 = config.model.dtype == 'bfloat16'
    self._optimizer = torch.optim.SGD(
      self._network.parameters(),
      lr=config.optimizer.learning_rate,
      momentum=config.optimizer.momentum,
      weight_decay=config.optimizer.weight_decay,
      fused=True,
    )

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    self._network.train()
    self._optimizer.zero_grad()
    loss = functional.cross_entropy(self._logits(), self._labels)
    loss.backward()
    self._optimizer.step()
    return self._wait()

  @torch.inference_mode()
  def evaluate(self) -> Callable[[], None]:
    """Starts one forward pass."""
    self._network.eval()
    self._logits()
    return self._wait()

  def gpu_memory(self) -> int | None:
    """Returns the most bytes of the GPU in use so far, or None without one."""
    if self._device == 'cpu':
      return None
    return torch.cuda.max_memory_allocated()

  def _wait(self) -> Callable[[], None]:
    if self._device == 'cpu':  # where all is done at once
      return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize

  def _logits(self) -> torch.Tensor:
    with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
      return self._apply(self._images.float() - 120).float()


def build(config: ml_collections.ConfigDict, fast_lrn: bool) -> nn.Module:
  """Returns the network of a config, for images of the size of its crops.

  Towers are groups of convolutions.

  Response norms run over the channels of all towers, as a user of PyTorch
  would write them: the windows of a few channels at the towers' seam differ.

  Args:
    config: Config of the network.
    fast_lrn: Whether to use `FastLRN` in place of `nn.LocalResponseNorm`.
  """
  model = config.model
  if model.name == 'resnet18':
    return torch_nets.ResNet(
      (2, 2, 2, 2), 64, False, 'B', 'imagenet', model.num_classes
    )
  shape, blocks = (3, *[config.data.crop_size] * 2), collections.OrderedDict()
  for name, row in alexnet.layer_table(model).items():
    operations = [_operation(model, op, fast_lrn) for op in row.after]
    blocks[name] = nn.Sequential(*_layer(model, name, row, shape), *operations)
    with torch.no_grad():
      shape = blocks[name](torch.zeros(2, *shape)).shape[1:]
  return nn.Sequential(blocks)


def _layer(
  model: ml_collections.ConfigDict, name: str, row, shape: tuple[int, ...]
) -> list[nn.Module]:
  is_head = row.kind == 'head'
  features = model.num_classes if is_head else row.features * model.towers
  if row.kind in ('dense', 'head'):
    return [nn.Flatten(), nn.Linear(torch.Size(shape).numel(), features)]
  before, after = row.padding
  pad = [] if before == after else [nn.ZeroPad2d((before, after) * 2)]
  padding = before if before == after else 0
  if row.kind == 'local':
    return [*pad, Local(shape, row.features, row.kernel, row.stride, padding)]
  reads_all = row.gather or name == model.layers[0]
  conv = nn.Conv2d(
    shape[0],
    features,
    row.kernel,
    row.stride,
    padding,
    groups=1 if reads_all else model.towers,
  )
  return [*pad, conv]


def _operation(
  model: ml_collections.ConfigDict, operation: str, fast_lrn: bool
) -> nn.Module:
  if operation == 'act':
    return _ACTIVATIONS[model.activation]()
  if operation == 'dropout':
    return nn.Dropout(1 - model.keep)
  if operation == 'spatial_norm':
    return SpatialNorm(**model.spatial_norm)
  if operation == 'lrn':
    lrn = model.lrn
    # PyTorch divides alpha by the size of the window.
    alpha = lrn.alpha * (1 if lrn.alpha_over_n else lrn.n)
    norm = FastLRN if fast_lrn else nn.LocalResponseNorm
    return norm(lrn.n, alpha, lrn.beta, lrn.k)
  pool, size, stride = model.pool, model.pool.size, model.pool.stride
  if operation == 'max_pool':
    return nn.MaxPool2d(size, stride, ceil_mode=pool.ceil)
  return nn.AvgPool2d(
    size, stride, ceil_mode=pool.ceil, count_include_pad=False
  )


class Local(nn.Module):
  """A convolution without weight sharing: unfolded, then a product a place.

  Args:
    shape: (C, H, W) of the input.
    features: Output channels.
    kernel: Side of the filters.
    stride: Step between places.
    padding: Zeros on each side.
  """

  def __init__(self, shape, features, kernel, stride, padding):
    super().__init__()
    channels, height, width = shape
    self._unfold = nn.Unfold(kernel, stride=stride, padding=padding)
    self._side = (height + 2 * padding - kernel) // stride + 1
    places, patch = self._side**2, channels * kernel**2
    self.weight = nn.Parameter(0.01 * torch.randn(places, patch, features))
    self.bias = nn.Parameter(torch.zeros(places, 1, features))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the outputs: [N, C, H, W] -> [N, features, H', W']."""
    patches = self._unfold(x).permute(2, 0, 1)  # [H' W', N, C k k]
    y = torch.baddbmm(self.bias, patches, self.weight)
    return y.permute(1, 2, 0).unflatten(2, (self._side, self._side))


class SpatialNorm(nn.Module):
  """A norm x / (k + scale / size^2 * sum of squares, size x size)^beta.

  Args:
    size: Side of the window, in the same map.
    k: Addend.
    scale: Factor of the mean square.
    beta: Exponent.
  """

  def __init__(self, size, k, scale, beta):
    super().__init__()
    self._size, self._k, self._scale, self._beta = size, k, scale, beta

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the normed maps [N, C, H, W]."""
    mean = functional.avg_pool2d(x * x, self._size, 1, self._size // 2)
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
  """The fastest local response norm that we could write for PyTorch on CPUs.

  Args:
    size: Channels of a window.
    alpha: Factor of the mean square.
    beta: Exponent.
    k: Addend.
  """

  def __init__(self, size, alpha, beta, k):
    super().__init__()
    self._size, self._alpha, self._beta, self._k = size, alpha, beta, k
    self._band = None

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns the normed maps [N, C, H, W]."""
    if self._band is None:
      channel = torch.arange(x.shape[1], device=x.device)
      near = (channel[:, None] - channel).abs() <= self._size // 2
      # [C, C, 1, 1]: alpha / size where two channels share a window.
      self._band = near[..., None, None] * (self._alpha / self._size)
    return _FastLRN.apply(x, self._band.to(x.dtype), self._k, self._beta)


if __name__ == '__main__':
  step_worker.serve(Step)
