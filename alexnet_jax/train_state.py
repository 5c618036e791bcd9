"""What a training step carries from one step to the next."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from alexnet_jax import metrics, optim, parallel
from alexnet_jax.data import augment
from alexnet_jax.models import AlexNet

Tree = Any


@flax.struct.dataclass
class TrainState:
  """Everything that the next step depends on, and that a checkpoint holds.

  Attributes:
    step: how many updates were done.
    params: of the network. In canonical form, a tower-wise parameter has all
      T towers in its leading axis.
    opt_state: of the update rule; velocities like `params`.
    rate_scale: the plateau rule's factor of every rate.
    window: sums of training metrics since the last row was logged.
    first_bad_step: the first step, counted from 1, whose loss or gradients
      were not finite; -1 if none. Such a step changes no parameter.
  """

  step: Any
  params: Tree
  opt_state: Tree
  rate_scale: Any
  window: metrics.Sums
  first_bad_step: Any


def create_model(
  config: ml_collections.ConfigDict,
  towers: parallel.LocalTowers | parallel.DeviceTowers | None = None,
) -> AlexNet:
  """The network of `config.model`; by default with all towers on one device."""
  local = parallel.LocalTowers(config.model.towers)
  return AlexNet(ml_collections.FrozenConfigDict(config.model), towers or local)


def create_optimizer(
  config: ml_collections.ConfigDict, params: Tree
) -> optax.GradientTransformationExtraArgs:
  """The update rule with this config's momentum and decays."""
  decays = optim.decay_tree(params, config.optimizer)
  return optim.update_rule(config.optimizer.momentum, decays)


def create_train_state(config: ml_collections.ConfigDict) -> TrainState:
  """The canonical state at step 0, as numpy arrays.

  It depends on `config.seed`, and on no device layout.
  """
  create = jax.jit(functools.partial(_initial_state, config))
  # Runs once: on CPUs, compiling its many samplers well takes longer than that.
  on_cpu = jax.default_backend() == 'cpu'
  options = {'xla_backend_optimization_level': 0} if on_cpu else {}
  return jax.device_get(create.lower().compile(compiler_options=options)())


def abstract_train_state(config: ml_collections.ConfigDict) -> TrainState:
  """Shapes and types of the canonical state."""
  return jax.eval_shape(functools.partial(_initial_state, config))


def _initial_state(config: ml_collections.ConfigDict) -> TrainState:
  key = augment.random_key(config.seed, 'init')
  size = config.data.crop_size
  images = jnp.zeros((1, size, size, 3))
  params = create_model(config).init(key, images)['params']
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=create_optimizer(config, params).init(params),
    rate_scale=jnp.float32(1),
    window=metrics.zeros(),
    first_bad_step=jnp.int32(-1),
  )


def tower_wise(config: ml_collections.ConfigDict, state: TrainState) -> Tree:
  """Marks the leaves with a leading tower axis: all parameters but the head's.

  Returns:
    A TrainState of booleans.
  """
  by_tower = {
    layer: dict.fromkeys(leaves, config.model[layer].kind != 'head')
    for layer, leaves in state.params.items()
  }
  velocities = optax.tree_map_params(
    create_optimizer(config, state.params),
    lambda _, flag: flag,
    state.opt_state,
    by_tower,
    transform_non_params=lambda _: False,
  )
  nowhere = jax.tree.map(lambda _: False, state)
  return nowhere.replace(params=by_tower, opt_state=velocities)
