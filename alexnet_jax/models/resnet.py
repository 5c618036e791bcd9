"""ResNets for ImageNet and for CIFAR-10.

Sources: He et al. 2015, arXiv 1512.03385, table 1 and section 4.2; TV
torchvision/models/resnet.py, whose bottleneck has its stride in the 3x3
convolution (v1.5); weights start as in FB fb.resnet.torch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax.models import batch_norm, one_tower


def _fields(*blocks: int, **changes) -> dict:
  """Returns the fields of a net with so many blocks in each stage."""
  return {
    'batch_norm': batch_norm.FIELDS,
    'resnet': {
      'blocks': blocks,
      # Maps of the first stage; each other one has twice as many.
      'width': 64,
      'bottleneck': False,
      # Whether a bottleneck's first convolution has the stride (v1).
      'stride_in_1x1': False,
      # Where shapes change: 'A' adds maps of zeros, 'B' projects.
      'shortcut': 'B',
      # 'imagenet' (7x7, stride 2, and a pool) or 'cifar' (3x3).
      'stem': 'imagenet',
      # Whether a block's last scales start from 0, so that it starts as the
      # identity.
      'zero_gamma': False,
    }
    | changes,
  }


VARIANTS = {
  'resnet18': _fields(2, 2, 2, 2),
  'resnet34': _fields(3, 4, 6, 3),
  'resnet50': _fields(3, 4, 6, 3, bottleneck=True),
  'resnet20_cifar': _fields(3, 3, 3, width=16, stem='cifar', shortcut='A'),
}
_INIT = {
  'use_bias': False,
  'kernel_init': nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
}
# PyTorch's default: uniform, +-1 / sqrt(fan-in).
_HEAD_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class ResNet(one_tower.OneTower):
  """A stem, stages of residual blocks, and the mean over all places."""

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    resnet = self.config.resnet
    large = resnet.stem == 'imagenet'
    kernel, stride = (7, 2) if large else (3, 1)
    x = self.conv('conv1', images, resnet.width, kernel, stride=stride, **_INIT)
    x = nn.relu(self.batch_norm('bn1', x, train))
    if large:
      x = one_tower.max_pool(x, 'the pool', size=3, stride=2, padding=1)
    for stage in range(1, len(resnet.blocks) + 1):
      x = Stage(self.config, self.towers, stage, name=f'stage{stage}')(x, train)
    return self.head(x.mean((1, 2)), kernel_init=_HEAD_INIT)


class Stage(one_tower.OneTower):
  """Blocks with maps of one size; the first one halves the maps before it.

  Attributes:
    stage: Its number, from 1. The first stage halves nothing.
  """

  stage: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    resnet = self.config.resnet
    width = resnet.width * 2 ** (self.stage - 1)
    for number in range(1, resnet.blocks[self.stage - 1] + 1):
      stride = 2 if number == 1 and self.stage > 1 else 1
      part = (self.config, self.towers, width, stride)
      x = Block(*part, name=f'block{number}')(x, train)
    return x


class Block(one_tower.OneTower):
  """Two convolutions, or three in a bottleneck, and a way around them.

  Attributes:
    width: Maps; a bottleneck returns 4 times as many.
    stride: Pixels between the places that it computes.
  """

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y, rows = x, self._rows()
    for number, (width, kernel, stride) in enumerate(rows, 1):
      is_last = number == len(rows)
      scale = 0 if is_last and self.config.resnet.zero_gamma else 1
      y = self.conv(f'conv{number}', y, width, kernel, stride=stride, **_INIT)
      init = nn.initializers.constant(scale)
      y = self.batch_norm(f'bn{number}', y, train, scale_init=init)
      y = y if is_last else nn.relu(y)
    return nn.relu(y + self._shortcut(x, y.shape[-1], train))

  def _rows(self) -> list[tuple[int, int, int]]:
    """Returns (width, kernel, stride) of the convolutions."""
    width, stride = self.width, self.stride
    if not self.config.resnet.bottleneck:
      return [(width, 3, stride), (width, 3, 1)]
    first = stride if self.config.resnet.stride_in_1x1 else 1
    return [(width, 1, first), (width, 3, stride // first), (4 * width, 1, 1)]

  def _shortcut(self, x: jax.Array, width: int, train: bool) -> jax.Array:
    stride, more = self.stride, width - x.shape[-1]
    if stride == 1 and not more:
      return x
    if self.config.resnet.shortcut == 'A':
      x = x[:, ::stride, ::stride]
      return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
    x = self.conv('shortcut_conv', x, width, 1, stride=stride, **_INIT)
    return self.batch_norm('shortcut_bn', x, train)
