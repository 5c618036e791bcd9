"""The network as one would first write it with Flax: without any tricks.

Towers are groups of convolutions, pools and response norms are those of
`tests.reference`, the update rule is optax's. No compiler options.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from alexnet_jax.models import alexnet, layers
from experiments.benchmarks import step_worker
from tests import reference


class Network(nn.Module):
  """A network from the same table of layers: [N, H, W, 3] -> [N, classes].

  Attributes:
    config: `config.model`, frozen.
  """

  config: ml_collections.FrozenConfigDict

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    for name, row in alexnet.layer_table(self.config).items():
      x = self._layer(name, row)(x)
      for operation in row.after:
        x = self._operation(operation, x, train)
    return x

  def _layer(self, name: str, row) -> Callable[[jax.Array], jax.Array]:
    model, is_head = self.config, row.kind == 'head'
    features = model.num_classes if is_head else row.features * model.towers
    if row.kind in ('dense', 'head'):
      dense = nn.Dense(features, name=name)
      return lambda x: dense(x.reshape(x.shape[0], -1))
    layer = nn.ConvLocal if row.kind == 'local' else nn.Conv
    reads_all = row.gather or name == model.layers[0] or row.kind == 'local'
    return layer(
      features,
      (row.kernel, row.kernel),
      row.stride,
      (tuple(row.padding),) * 2,
      feature_group_count=1 if reads_all else model.towers,
      name=name,
    )

  def _operation(self, operation: str, x: jax.Array, train: bool) -> jax.Array:
    model = self.config
    if operation == 'act':
      return layers.ACTIVATIONS[model.activation](x)
    if operation == 'dropout':
      return nn.Dropout(1 - model.keep, deterministic=not train)(x)
    if operation == 'lrn':
      lrn = model.lrn
      alpha = lrn.alpha / (lrn.n if lrn.alpha_over_n else 1)
      return reference.local_response_norm(
        x, n=lrn.n, k=lrn.k, alpha=alpha, beta=lrn.beta
      )
    if operation == 'spatial_norm':
      return reference.spatial_response_norm(x, **model.spatial_norm)
    return reference.pool(x, operation.removesuffix('_pool'), **model.pool)


class Step:
  """A network's training step and forward pass on one batch.

  Args:
    config: Config of the network.
    batch: Result of `step_worker.random_batch`.
  """

  gpu_memory = staticmethod(step_worker.jax_memory)

  def __init__(self, config: ml_collections.ConfigDict, batch: dict):
    network = Network(ml_collections.FrozenConfigDict(config.model))
    self._images, self._labels = map(
      jax.device_put, (batch['image'], batch['label'])
    )
    self._rule = optax.chain(
      optax.add_decayed_weights(config.optimizer.weight_decay),
      optax.sgd(config.optimizer.learning_rate, config.optimizer.momentum),
    )
    key = jax.random.key(config.seed)
    init = jax.jit(functools.partial(network.init, train=False))
    params = init(key, self._images[:1].astype(jnp.float32))['params']
    self._state = params, self._rule.init(params), key
    self._apply = network.apply
    self._update = jax.jit(self._train_step)
    self._forward = jax.jit(functools.partial(self._logits, train=False))

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    self._state, loss = self._update(self._state, self._images, self._labels)
    return functools.partial(jax.block_until_ready, loss)

  def evaluate(self) -> Callable[[], None]:
    """Starts one forward pass."""
    logits = self._forward(self._state[0], self._images)
    return functools.partial(jax.block_until_ready, logits)

  def _logits(self, params, images: jax.Array, **options) -> jax.Array:
    inputs = images.astype(jnp.float32) - 120
    return self._apply({'params': params}, inputs, **options)

  def _train_step(self, state, images: jax.Array, labels: jax.Array):
    params, opt_state, key = state
    key, dropout_key = jax.random.split(key)

    def loss(params):
      rngs = {'dropout': dropout_key}
      logits = self._logits(params, images, train=True, rngs=rngs)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
      ).mean()

    value, gradients = jax.value_and_grad(loss)(params)
    updates, opt_state = self._rule.update(gradients, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, key), value


if __name__ == '__main__':
  step_worker.serve(Step)
