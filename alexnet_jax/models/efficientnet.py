"""EfficientNet-B0: inverted bottlenecks that weigh their maps.

Sources: Tan and Le 2019, arXiv 1905.11946, table 1; TPU
models/official/efficientnet, whose constants and padding are the defaults. TV
torchvision/models/efficientnet.py pads alike on both sides and has an epsilon
of 1e-5 (`torch_padding`, `batch_norm.epsilon`).
"""

import flax.linen as nn
import jax

from alexnet_jax.models import batch_norm, one_tower

VARIANTS = {
  'efficientnet_b0': {
    'keep': 0.8,
    'batch_norm': batch_norm.FIELDS | {'momentum': 0.99, 'epsilon': 1e-3},
    'efficientnet': {
      'stem': 32,
      # 1 for images of 32 pixels.
      'stem_stride': 2,
      # Expansion, kernel, stride, maps, blocks.
      'stages': (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
      ),
      'top': 1280,
      # Block i of b (from 0) stays with probability 1 - (1 - survival) i / b.
      'survival': 0.8,
      'torch_padding': False,
    },
  }
}
# Variance 2 / (k * k * outputs), where a depthwise filter has one output.
_CONV_INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_DEPTHWISE_INIT = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')
# Uniform, +-1 / sqrt(classes).
_HEAD_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_out', 'uniform')


class _Part(one_tower.OneTower):
  """A part of the network, with its form of convolution."""

  def conv_norm(
    self,
    name: str,
    x: jax.Array,
    features: int,
    kernel: int,
    train: bool,
    **options,
  ) -> jax.Array:
    """Applies a convolution without bias and batch normalisation."""
    options = {'kernel_init': _CONV_INIT, 'use_bias': False} | options
    if not self.config.efficientnet.torch_padding:
      options['padding'] = 'SAME'
    x = self.conv(f'{name}_conv', x, features, kernel, **options)
    return self.batch_norm(f'{name}_bn', x, train)


class EfficientNet(_Part):
  """A stem, stages of inverted bottlenecks, and the mean over all places."""

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    fields = self.config.efficientnet
    stride = fields.stem_stride
    x = self.conv_norm('stem', images, fields.stem, 3, train, stride=stride)
    x = nn.swish(x)
    for stage in range(1, len(fields.stages) + 1):
      part = (self.config, self.towers, stage)
      x = Stage(*part, name=f'stage{stage}')(x, index, train)
    x = nn.swish(self.conv_norm('top', x, fields.top, 1, train)).mean((1, 2))
    x = self.dropout('dropout', x, self.config.keep, index, train)
    return self.head(x, kernel_init=_HEAD_INIT)


class Stage(one_tower.OneTower):
  """A row of the paper's table 1.

  Attributes:
    stage: Its number, from 1.
  """

  stage: int

  @nn.compact
  def __call__(
    self, x: jax.Array, index: jax.Array | None, train: bool
  ) -> jax.Array:
    fields = self.config.efficientnet
    counts = [row[-1] for row in fields.stages]
    before = sum(counts[: self.stage - 1])
    expansion, kernel, stride, width, count = fields.stages[self.stage - 1]
    for number in range(count):
      keep = 1 - (1 - fields.survival) * (before + number) / sum(counts)
      row = (expansion, kernel, 1 if number else stride, width)
      part = (self.config, self.towers, row, keep)
      x = Block(*part, name=f'block{number + 1}')(x, index, train)
    return x


class Block(_Part):
  """MBConv: expands the maps, convolves each, weighs them and projects.

  Attributes:
    row: Expansion, kernel, stride, maps.
    keep: Probability that an example's block stays in training.
  """

  row: tuple[int, int, int, int]
  keep: float

  @nn.compact
  def __call__(
    self, x: jax.Array, index: jax.Array | None, train: bool
  ) -> jax.Array:
    (expansion, kernel, stride, width), inputs = self.row, x.shape[-1]
    wide, y = expansion * inputs, x
    if expansion > 1:
      y = nn.swish(self.conv_norm('expand', y, wide, 1, train))
    init = _DEPTHWISE_INIT
    options = {'stride': stride, 'depthwise': True, 'kernel_init': init}
    y = self.conv_norm('depthwise', y, wide, kernel, train, **options)
    y = self._weigh(nn.swish(y), max(1, inputs // 4))
    y = self.conv_norm('project', y, width, 1, train)
    if x.shape != y.shape:
      return y
    y = self.dropout('drop', y, self.keep, index, train, whole_example=True)
    return x + y

  def _weigh(self, x: jax.Array, squeezed: int) -> jax.Array:
    """Multiplies maps by weights that depend on all of them."""
    means = x.mean((1, 2), keepdims=True)
    y = self.conv('squeeze', means, squeezed, 1, kernel_init=_CONV_INIT)
    y = nn.swish(y)
    y = self.conv('excite', y, x.shape[-1], 1, kernel_init=_CONV_INIT)
    return x * nn.sigmoid(y)
