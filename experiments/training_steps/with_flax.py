"""AlexNet as one would first write it with Flax: what the tricks start from.

Towers are groups of convolutions, pools are Flax's, response norms are
`plain`'s, the update rule is optax's. No compiler options.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from alexnet_jax.models import alexnet, plain
from experiments.training_steps import jax_device


class Network(nn.Module):
  """[N, H, W, 3] -> [N, num_classes], from the same table of layers.

  Attributes:
    config: `config.model`, frozen.
  """

  config: ml_collections.FrozenConfigDict

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    model = self.config
    for name, row in alexnet.layer_table(model).items():
      x = self._layer(name, row, x)
      for operation in row.after:
        x = self._operation(operation, x, train)
    return x

  def _layer(self, name: str, row, x: jax.Array) -> jax.Array:
    model = self.config
    if row.kind == 'head':
      return nn.Dense(model.num_classes, name=name)(x.reshape(x.shape[0], -1))
    features = row.features * model.towers
    if row.kind == 'dense':
      return nn.Dense(features, name=name)(x.reshape(x.shape[0], -1))
    geometry = {
      'features': features,
      'kernel_size': (row.kernel, row.kernel),
      'strides': row.stride,
      'padding': (tuple(row.padding),) * 2,
      'name': name,
    }
    if row.kind == 'local':
      return nn.ConvLocal(**geometry)(x)
    reads_all = row.gather or name == model.layers[0]
    groups = 1 if reads_all else model.towers
    return nn.Conv(**geometry, feature_group_count=groups)(x)

  def _operation(self, operation: str, x: jax.Array, train: bool) -> jax.Array:
    model = self.config
    if operation == 'act':
      return alexnet.ACTIVATIONS[model.activation](x)
    if operation == 'dropout':
      return nn.Dropout(1 - model.keep, deterministic=not train)(x)
    if operation == 'lrn':
      lrn = model.lrn
      alpha = lrn.alpha / (lrn.n if lrn.alpha_over_n else 1)
      return plain.local_response_norm(
        x, n=lrn.n, k=lrn.k, alpha=alpha, beta=lrn.beta
      )
    if operation == 'spatial_norm':
      return plain.spatial_response_norm(x, **model.spatial_norm)
    return plain.pool(x, operation.removesuffix('_pool'), **model.pool)


class Step(jax_device.OnJaxDevice):
  """A network's training step and forward pass on one batch."""

  def __init__(self, config: ml_collections.ConfigDict, batch: dict):
    """Compiles nothing yet."""
    self._network = Network(ml_collections.FrozenConfigDict(config.model))
    names = ('image', 'label')
    self._batch = jax.device_put({n: batch[n] for n in names})
    optimizer = config.optimizer
    self._rule = optax.chain(
      optax.add_decayed_weights(optimizer.weight_decay),
      optax.sgd(optimizer.learning_rate, optimizer.momentum),
    )
    key = jax.random.key(config.seed)
    images = self._inputs(self._batch['image'][:1])
    init = jax.jit(lambda: self._network.init(key, images, train=False))
    params = init()['params']
    self._state = params, self._rule.init(params), key
    self._update = jax.jit(self._train_step)
    self._forward = jax.jit(
      lambda params, images: self._network.apply(
        {'params': params}, self._inputs(images), train=False
      )
    )

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    self._state, loss = self._update(self._state, self._batch)
    return functools.partial(jax.block_until_ready, loss)

  def evaluate(self) -> Callable[[], None]:
    """Starts one forward pass."""
    logits = self._forward(self._state[0], self._batch['image'])
    return functools.partial(jax.block_until_ready, logits)

  def _inputs(self, images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) - 120

  def _train_step(self, state, batch):
    params, opt_state, key = state
    key, dropout_key = jax.random.split(key)

    def loss(params):
      logits = self._network.apply(
        {'params': params},
        self._inputs(batch['image']),
        train=True,
        rngs={'dropout': dropout_key},
      )
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, batch['label']
      ).mean()

    value, gradients = jax.value_and_grad(loss)(params)
    updates, opt_state = self._rule.update(gradients, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, key), value
