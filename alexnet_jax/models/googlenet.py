"""GoogLeNet (Inception v1) in the form that was trained with a known recipe.

Sources: CAFFE models/bvlc_googlenet/train_val.prototxt; Szegedy et al. 2014,
arXiv 1409.4842, table 1, which it equals but for the paper's misprints. The
form for small images has the parameters of KUA models/googlenet.py: one
convolution as its stem, batch normalisation instead of response norms, two 3x3
convolutions instead of each 5x5, and no auxiliary heads.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax.models import batch_norm, layers, one_tower

VARIANTS = {
  'googlenet': {
    'keep': 0.6,
    'batch_norm': batch_norm.FIELDS,
    # Whether it has the form for images of 32 pixels.
    'googlenet': {'small_images': False},
  }
}
# The auxiliary heads drop .7 of their units in every recipe.
_AUX_KEEP = 0.3
# 1x1, 3x3's reduction, 3x3, 5x5's reduction, 5x5, the pool's projection.
INCEPTIONS = {
  '3a': (64, 96, 128, 16, 32, 32),
  '3b': (128, 128, 192, 32, 96, 64),
  '4a': (192, 96, 208, 16, 48, 64),
  '4b': (160, 112, 224, 24, 64, 64),
  '4c': (128, 128, 256, 24, 64, 64),
  '4d': (112, 144, 288, 32, 64, 64),
  '4e': (256, 160, 320, 32, 128, 128),
  '5a': (256, 160, 320, 32, 128, 128),
  '5b': (384, 192, 384, 48, 128, 128),
}
_POOL_AFTER = ('3b', '4e')
_AUX_AFTER = {'4a': 'aux1', '4d': 'aux2'}
# Caffe's 'xavier': uniform, with variance 1 / fan-in.
_HEAD_INIT = {'kernel_init': nn.initializers.lecun_uniform()}
_INIT = _HEAD_INIT | {'bias_init': nn.initializers.constant(0.2)}
_lrn = functools.partial(
  layers.local_response_norm, n=5, k=1.0, alpha=1e-4 / 5, beta=0.75
)
_pool = functools.partial(one_tower.max_pool, size=3, stride=2, ceil=True)


class _Part(one_tower.OneTower):
  """A part of the network, with its form of convolution."""

  def conv_relu(
    self,
    name: str,
    x: jax.Array,
    features: int,
    kernel: int,
    train: bool,
    **options,
  ) -> jax.Array:
    """Applies a convolution, batch normalisation if it has it, and a ReLU."""
    x = self.conv(name, x, features, kernel, **_INIT, **options)
    if self.config.googlenet.small_images:
      x = self.batch_norm(f'{name}_bn', x, train)
    return nn.relu(x)


class GoogLeNet(_Part):
  """Nine inception modules, with two auxiliary heads in training.

  The auxiliary heads' logits are the leaves of the collection
  'auxiliary_logits'. The paper adds .3 of their losses to the loss.
  """

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    x = self.stem(images, train)
    needs_heads = train or self.is_initializing()
    heads = {} if self.config.googlenet.small_images else _AUX_AFTER
    for name, widths in INCEPTIONS.items():
      part = (self.config, self.towers)
      x = Inception(*part, widths, name=f'inception_{name}')(x, train)
      if needs_heads and name in heads:
        AuxiliaryHead(*part, name=heads[name])(x, index, train)
      if name in _POOL_AFTER:
        x = _pool(x, f'the pool after {name}')
    x = x.mean((1, 2))
    x = self.dropout('dropout', x, self.config.keep, index, train)
    return self.head(x, **_HEAD_INIT)

  def stem(self, images: jax.Array, train: bool) -> jax.Array:
    """Returns maps of an eighth of the side, or of the side of small images."""
    if self.config.googlenet.small_images:
      return self.conv_relu('conv1', images, 192, 3, train)
    x = self.conv_relu('conv1', images, 64, 7, train, stride=2)
    x = _lrn(_pool(x, 'pool1'))
    x = self.conv_relu('conv2_reduce', x, 64, 1, train)
    x = self.conv_relu('conv2', x, 192, 3, train)
    return _pool(_lrn(x), 'pool2')


class Inception(_Part):
  """Four branches that read the same maps, side by side.

  Attributes:
    widths: Maps of each convolution, see `INCEPTIONS`.
  """

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    conv = functools.partial(self.conv_relu, train=train)
    one, reduce_3, three, reduce_5, five, projection = self.widths
    pooled = one_tower.max_pool(x, self.name, size=3, stride=1, padding=1)
    y = conv('conv_5x5_reduce', x, reduce_5, 1)
    if self.config.googlenet.small_images:
      y = conv('conv_5x5_2', conv('conv_5x5_1', y, five, 3), five, 3)
    else:
      y = conv('conv_5x5', y, five, 5)
    branches = [
      conv('conv_1x1', x, one, 1),
      conv('conv_3x3', conv('conv_3x3_reduce', x, reduce_3, 1), three, 3),
      y,
      conv('pool_proj', pooled, projection, 1),
    ]
    return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(_Part):
  """A small classifier half-way, which sends gradients to the lower layers."""

  @nn.compact
  def __call__(
    self, x: jax.Array, index: jax.Array | None, train: bool
  ) -> None:
    layers.check_side(x, 3, self.name)
    x = layers.pool(x, 'avg', size=5, stride=3, ceil=True)
    x = self.conv_relu('conv', x, 128, 1, train)
    x = nn.relu(self.dense('fc', x, 1024, **_INIT))
    x = self.dropout('dropout', x, _AUX_KEEP, index, train)
    self.sow('auxiliary_logits', 'logits', self.head(x, **_HEAD_INIT))
