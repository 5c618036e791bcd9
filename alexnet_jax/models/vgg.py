"""VGG-16 and VGG-19: nothing but 3x3 convolutions, pools and dense layers.

Sources: Simonyan and Zisserman 2014, arXiv 1409.1556, nets D and E; weights
start as in TV torchvision/models/vgg.py, which train in one go. With
`batch_norm` and `dense` = () or (512, 512) they are the nets that KUA and CHEN
train on CIFAR-10.
"""

import flax.linen as nn
import jax
import ml_collections

from alexnet_jax.models import batch_norm, one_tower


def _fields(*convs: int) -> dict:
  """Returns the fields of a net with so many convolutions in each stage."""
  return {
    'keep': 0.5,
    'batch_norm': batch_norm.FIELDS,
    'vgg': {
      'convs': convs,
      # Maps of the first stage; the others have 2, 4, 8 and 8 times as many.
      'width': 64,
      'dense': (4096, 4096),
      'batch_norm': False,
    },
  }


VARIANTS = {'vgg16': _fields(2, 2, 3, 3, 3), 'vgg19': _fields(2, 2, 4, 4, 4)}
_CONV_INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
_DENSE_INIT = nn.initializers.normal(0.01)


def stage_width(vgg: ml_collections.ConfigDict, stage: int) -> int:
  """Returns the number of maps in a stage, counted from 1."""
  return vgg.width * min(2 ** (stage - 1), 8)


class VGG(one_tower.OneTower):
  """Stages of convolutions and a pool, then dense layers with dropout."""

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    vgg, x = self.config.vgg, images
    for stage, count in enumerate(vgg.convs, 1):
      width = stage_width(vgg, stage)
      for number in range(1, count + 1):
        x = self.block(f'{stage}_{number}', x, width, train)
      x = one_tower.max_pool(x, f'pool{stage}', size=2, stride=2)
    for number, width in enumerate(vgg.dense, len(vgg.convs) + 1):
      x = nn.relu(self.dense(f'fc{number}', x, width, kernel_init=_DENSE_INIT))
      name = f'fc{number}_dropout'
      x = self.dropout(name, x, self.config.keep, index, train)
    return self.head(x, kernel_init=_DENSE_INIT)

  def block(
    self, place: str, x: jax.Array, width: int, train: bool
  ) -> jax.Array:
    """Applies a convolution, batch normalisation if asked, and a ReLU."""
    x = self.conv(f'conv{place}', x, width, 3, kernel_init=_CONV_INIT)
    if self.config.vgg.batch_norm:
      x = self.batch_norm(f'bn{place}', x, train)
    return nn.relu(x)
