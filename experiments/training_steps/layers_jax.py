"""Each layer of the project's network by itself, forward and backward."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from alexnet_jax import errors, parallel, train_state
from alexnet_jax.models import alexnet
from experiments.benchmarking import worker


class _Layer(alexnet.AlexNet):
  """One row of the table, with the operations after it."""

  layer: str = ''

  @nn.compact
  def __call__(self, towers: list[jax.Array], index: jax.Array):
    row = alexnet.layer_table(self.config)[self.layer]
    return self.block(self.layer, row, towers, index, train=True)


def layer_runs(
  config: ml_collections.ConfigDict,
) -> dict[str, worker.Run]:
  """What to time: '<layer> forward' and '<layer> both', with the backward."""
  if jax.default_backend() != 'cpu':
    raise errors.UserError('layers are timed on CPUs only')
  model = ml_collections.FrozenConfigDict(config.model)
  state = train_state.create_train_state(config)
  index = jnp.arange(config.batch_size, dtype=jnp.uint32)
  size = config.data.crop_size
  images = jnp.ones((config.batch_size, size, size, 3))
  towers, runs = [images] * config.model.towers, {}
  for name in alexnet.layer_table(config.model):
    layer = _Layer(model, parallel.LocalTowers(config.model.towers), layer=name)
    params = jax.device_put({name: state.params[name]})
    is_first = name == config.model.layers[0]
    forward, both = _compile(layer, is_first, params, towers, index)
    runs[f'{name} forward'] = _runner(forward, params, towers, index)
    runs[f'{name} both'] = _runner(both, params, towers, index)
    towers = forward(params, towers, index)
  return runs


def _compile(layer: _Layer, is_first: bool, *example):
  """The layer, and the layer with the gradients that training needs."""

  def forward(params, towers, index):
    if is_first:  # all towers read the same images
      towers = [towers[0]] * len(towers)
    rngs = {'dropout': jax.random.key(0)}
    return layer.apply({'params': params}, towers, index, rngs=rngs)

  def both(params, towers, index):
    wanted = (params,) if is_first else (params, towers)

    def apply(params, towers=towers):
      return forward(params, towers, index)

    outputs, transpose = jax.vjp(apply, *wanted)
    return outputs, transpose(jax.tree.map(jnp.ones_like, outputs))

  options = parallel.compiler_options(deterministic=False)
  return [
    jax.jit(function).lower(*example).compile(compiler_options=options)
    for function in (forward, both)
  ]


def _runner(function: Callable, *arguments) -> worker.Run:
  return lambda: functools.partial(jax.block_until_ready, function(*arguments))
