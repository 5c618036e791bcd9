"""The per-device programs: one training step, one evaluation step.

Each is a plain function of arrays and of what does not change during a run.
`run.Run` binds that and compiles them.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from alexnet_jax import metrics, optim, parallel
from alexnet_jax.data import augment, pipeline, preprocessing
from alexnet_jax.models import MODELS

Tree = Any
# Weight of the loss of each auxiliary head (GoogLeNet, arXiv 1409.4842).
_AUXILIARY_WEIGHT = 0.3


@flax.struct.dataclass
class TrainState:
  """Everything that the next step depends on and that a checkpoint holds.

  Attributes:
    step: Number of updates so far.
    params: Network parameters. In canonical form, a tower-wise parameter has
      all T towers in its leading axis.
    batch_stats: Running moments of batch normalisation, {} without it.
    opt_state: State of the update rule; its velocities have the shapes of
      `params`.
    metric_sums: Sums of training metrics since the last row was logged.
    first_nonfinite_step: First step, counted from 1, whose loss or gradients
      were not finite; -1 if none. Such a step changes no parameter.
  """

  step: Any
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  metric_sums: metrics.Sums
  first_nonfinite_step: Any

  @property
  def variables(self) -> dict[str, Tree]:
    """The two collections of the network, 'params' and 'batch_stats'."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def create_model(
  config: ml_collections.ConfigDict,
  towers: parallel.LocalTowers | parallel.DeviceTowers | None = None,
) -> nn.Module:
  """Returns the network of `config.model`.

  Args:
    config: Config of the run.
    towers: Towers of one device; None for all towers.
  """
  local = parallel.LocalTowers(config.model.towers)
  model = MODELS[config.model.name]
  return model(ml_collections.FrozenConfigDict(config.model), towers or local)


def create_optimizer(
  config: ml_collections.ConfigDict, params: Tree
) -> optax.GradientTransformationExtraArgs:
  """Returns the update rule with the config's momentum and weight decays."""
  optimizer = config.optimizer
  return optim.update_rule(
    optimizer.momentum,
    optim.decay_tree(params, optimizer),
    nesterov=optimizer.nesterov,
    rate_inside=optimizer.rate_inside,
  )


def create_train_state(config: ml_collections.ConfigDict) -> TrainState:
  """Returns the canonical state at step 0, as numpy arrays.

  It depends on `config.seed` and on no device layout.
  """
  create = jax.jit(functools.partial(_initial_state, config))
  # Runs once: on CPUs, compiling its many samplers well takes longer than that.
  on_cpu = jax.default_backend() == 'cpu'
  options = {'xla_backend_optimization_level': 0} if on_cpu else {}
  return jax.device_get(create.lower().compile(compiler_options=options)())


def abstract_train_state(config: ml_collections.ConfigDict) -> TrainState:
  """Returns the shapes and types of the canonical state."""
  return jax.eval_shape(functools.partial(_initial_state, config))


def _initial_state(config: ml_collections.ConfigDict) -> TrainState:
  key = augment.random_key(config.seed, 'init')
  size = config.data.crop_size
  images = jnp.zeros((1, size, size, config.data.channels))
  variables = create_model(config).init(key, images)
  params = variables['params']
  return TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=variables.get('batch_stats', {}),
    opt_state=create_optimizer(config, params).init(params),
    metric_sums=metrics.zeros(),
    first_nonfinite_step=jnp.int32(-1),
  )


def tower_wise(config: ml_collections.ConfigDict, state: TrainState) -> Tree:
  """Marks the leaves with a leading tower axis.

  In AlexNet these are all running moments, and all parameters but the head's;
  other networks have none.

  Returns:
    A TrainState of booleans.
  """
  nowhere = jax.tree.map(lambda _: False, state)
  if config.model.name != 'alexnet':
    return nowhere
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
  return nowhere.replace(
    params=by_tower,
    batch_stats=jax.tree.map(lambda _: True, state.batch_stats),
    opt_state=velocities,
  )


def train_step(
  state: TrainState,
  batch: pipeline.Batch,
  rate_scale: jax.Array,
  *,
  model: nn.Module,
  plan: parallel.Plan,
  preprocess: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  dropout_key: jax.Array,
  optimizer: optax.GradientTransformationExtraArgs,
  learning_rates: optim.LearningRateFn,
  by_tower: Tree,
  label_smoothing: float = 0.0,
  local_rates: Callable[[Tree, Tree, Tree], Tree] | None = None,
  accumulate_steps: int = 1,
) -> tuple[TrainState, metrics.Sums]:
  """Makes one update on this device.

  Every device differentiates its own share of the loss. Devices that hold
  towers of the same examples compute the same loss, so each takes
  1 / towers_per_example of it; the shares then add up to the mean over the
  global batch.

  Args:
    state: State on this device; its buffers are reused.
    batch: Examples of this device, see `pipeline.train_batches`.
    rate_scale: Factor of every learning rate, see `optim.Plateau`.
    model: Network over the towers that this device holds.
    plan: Plan that spreads the work over devices.
    preprocess: Function of (images, index, step) that returns the network's
      inputs.
    dropout_key: Random key of the dropout masks.
    optimizer: Update rule.
    learning_rates: Function of (step, scale, params) that returns a tree of
      rates.
    by_tower: Tree of booleans that marks the parameters with a tower axis.
    label_smoothing: Share of each label that is spread evenly over the classes.
    local_rates: Function of rates and of the squared norms of parameters and
      gradients that returns LARS's rates; None for no LARS.
    accumulate_steps: Parts of the batch that are worked on one after another.

  Returns:
    The next state, and the sums of this step's metrics.
  """
  global_batch = batch['label'].shape[0] * plan.num_data_shards

  def loss_share(params, batch_stats, part):
    labels, index = part['label'], part['index']
    logits, changed = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      preprocess(part['image'], index, state.step),
      index,
      train=True,
      rngs={'dropout': dropout_key},
      mutable=['batch_stats', 'auxiliary_logits'],
    )
    losses = _cross_entropy(logits, labels, label_smoothing)
    for auxiliary in jax.tree.leaves(changed.get('auxiliary_logits', {})):
      losses += _AUXILIARY_WEIGHT * _cross_entropy(
        auxiliary, labels, label_smoothing
      )
    share = losses.sum() / (global_batch * plan.towers_per_example)
    sums = metrics.sums(
      jax.nn.log_softmax(logits), labels, jnp.ones(len(labels))
    )
    return share, (changed.get('batch_stats', {}), sums)

  gradients, (batch_stats, sums) = _accumulate(
    jax.grad(loss_share, has_aux=True), state, batch, accumulate_steps
  )
  gradients = plan.sum_gradients(gradients, by_tower)
  squares = plan.squared_norms(gradients, by_tower)
  sums = plan.sum_data_shards(sums)
  sums['gradient_norm'] = jnp.sqrt(optax.tree.sum(squares)) * global_batch
  # A sum is not finite if a term is not. Such a step changes nothing: with a
  # rate of 0, weights and velocities are held.
  is_finite = jnp.isfinite(optax.tree.sum(gradients) + sums['loss'])
  is_bad = plan.any(~is_finite)
  rates = learning_rates(
    state.step, jnp.where(is_bad, 0.0, rate_scale), state.params
  )
  if local_rates is not None:
    weights = plan.squared_norms(state.params, by_tower)
    rates = local_rates(rates, weights, squares)
  updates, opt_state = optimizer.update(
    gradients, state.opt_state, state.params, rates=rates
  )
  is_first_bad = is_bad & (state.first_nonfinite_step < 0)
  state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=jax.tree.map(
      lambda new, old: jnp.where(is_bad, old, new),
      batch_stats,
      state.batch_stats,
    ),
    opt_state=opt_state,
    metric_sums=jax.tree.map(jnp.add, state.metric_sums, sums),
    first_nonfinite_step=jnp.where(
      is_first_bad, state.step + 1, state.first_nonfinite_step
    ),
  )
  return state, sums


def _cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float
) -> jax.Array:
  if not smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  targets = jax.nn.one_hot(labels, logits.shape[-1])
  targets = optax.smooth_labels(targets, smoothing)
  return optax.softmax_cross_entropy(logits, targets)


def _accumulate(
  gradients_of: Callable[[Tree, Tree, pipeline.Batch], tuple[Tree, tuple]],
  state: TrainState,
  batch: pipeline.Batch,
  steps: int,
) -> tuple[Tree, tuple[Tree, metrics.Sums]]:
  """Returns gradients, running moments and sums of a batch, part by part.

  Part j has examples j, j + steps, ... of this device. So a part is the same
  examples of the global batch on any number of devices.

  Args:
    gradients_of: Function of (params, batch_stats, part).
    state: State on this device.
    batch: Examples of this device.
    steps: Number of parts.
  """
  if steps == 1:
    return gradients_of(state.params, state.batch_stats, batch)
  parts = jax.tree.map(  # [steps, N / steps, ...]
    lambda x: x.reshape(-1, steps, *x.shape[1:]).swapaxes(0, 1), batch
  )

  def add(carry, part):
    # The barrier keeps XLA from holding several parts in memory at a time.
    (totals, batch_stats), params, part = jax.lax.optimization_barrier(
      (carry, state.params, part)
    )
    gradients, (batch_stats, sums) = gradients_of(params, batch_stats, part)
    totals = jax.tree.map(jnp.add, totals, (gradients, sums))
    return (totals, batch_stats), None

  zeros = jax.tree.map(
    jnp.zeros_like, (state.params, dict.fromkeys(metrics.NAMES, 0.0))
  )
  # In a loop, XLA's convolutions would be many times slower on CPUs.
  is_unrolled = jax.default_backend() == 'cpu'
  ((gradients, sums), batch_stats), _ = jax.lax.scan(
    add, (zeros, state.batch_stats), parts, unroll=is_unrolled or 1
  )
  return gradients, (batch_stats, sums)


def eval_step(
  variables: Tree,
  batch: pipeline.Batch,
  *,
  model: nn.Module,
  plan: parallel.Plan,
  preprocess: preprocessing.Preprocessing,
  num_views: int,
) -> metrics.Sums:
  """Returns the sums over the global batch, of all and of each class.

  Args:
    variables: Parameters and running moments on this device.
    batch: Examples of this device, see `pipeline.eval_batches`.
    model: Network over the towers that this device holds.
    plan: Plan that spreads the work over devices.
    preprocess: Preprocessing of the run.
    num_views: Patches that are averaged, 1 or 10.
  """
  averaged = predict(
    variables,
    batch['image'],
    model=model,
    preprocess=preprocess,
    num_views=num_views,
  )
  examples = averaged, batch['label'], batch['mask']
  sums = metrics.sums(*examples) | metrics.class_sums(*examples)
  return plan.sum_data_shards(sums)


def predict(
  variables: Tree,
  images: jax.Array,
  *,
  model: nn.Module,
  preprocess: preprocessing.Preprocessing,
  num_views: int,
) -> jax.Array:
  """Returns class probabilities of whole images, averaged over views.

  Args:
    variables: Parameters and running moments on this device.
    images: [N, S, S, 3] of uint8.
    model: Network over the towers that this device holds.
    preprocess: Preprocessing of the run.
    num_views: Patches that are averaged, 1 or 10 (paper section 4.1).

  Returns:
    [N, classes], natural logarithms.
  """
  crop_size = int(preprocess.crop_size)
  log_probs = [
    jax.nn.log_softmax(model.apply(variables, preprocess(view)))
    for view in augment.views(images, crop_size, num_views)
  ]
  return log_mean_exp(jnp.stack(log_probs))


def log_mean_exp(log_probs: jax.Array) -> jax.Array:
  """Returns the logarithm of the mean probability over the first axis."""
  return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(log_probs))
