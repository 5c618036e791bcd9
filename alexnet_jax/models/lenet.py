"""LeNet-5 and Caffe's LeNet, the networks before AlexNet.

Sources: LeCun et al. 1998, LeNet-5, in the form that is usual today: every map
of the second layer reads all maps, pools have no parameters, and the outputs
are logits. CAFFE examples/mnist/lenet_train_test.prototxt.
"""

import flax.linen as nn
import jax

from alexnet_jax.models import layers, one_tower

# `pool` is 'avg' or 'max'. `padding` is that of the first layer: 2 for the 28
# pixels of MNIST, which the paper centres in 32.
VARIANTS = {
  'lenet5': {'activation': 'tanh', 'lenet': {'pool': 'avg', 'padding': 0}},
  'lenet_caffe': {},
}
# Caffe's 'xavier': uniform, with variance 1 / fan-in.
_INIT = {'kernel_init': nn.initializers.lecun_uniform()}


class LeNet5(one_tower.OneTower):
  """Two convolutions with pools and three dense layers."""

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    lenet, act = self.config.lenet, layers.ACTIVATIONS[self.config.activation]
    layers.check_side(images, 16 - 2 * lenet.padding, 'lenet5')
    x = act(self.conv('conv1', images, 6, 5, padding=lenet.padding, **_INIT))
    x = _halve(x, lenet.pool)
    x = act(self.conv('conv2', x, 16, 5, padding=0, **_INIT))
    x = _halve(x, lenet.pool)
    x = act(self.dense('fc3', x, 120, **_INIT))
    x = act(self.dense('fc4', x, 84, **_INIT))
    return self.head(x, **_INIT)


class LeNetCaffe(one_tower.OneTower):
  """Two wider convolutions; the one activation function follows `fc3`."""

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    layers.check_side(images, 16, 'lenet_caffe')
    x = self.conv('conv1', images, 20, 5, padding=0, **_INIT)
    x = self.conv('conv2', _halve(x, 'max'), 50, 5, padding=0, **_INIT)
    x = nn.relu(self.dense('fc3', _halve(x, 'max'), 500, **_INIT))
    return self.head(x, **_INIT)


def _halve(x: jax.Array, kind: str) -> jax.Array:
  return layers.pool(x, kind, size=2, stride=2, ceil=False)
