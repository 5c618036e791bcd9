"""The training step: what it needs, and how it is compiled."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax

from alexnet_jax import durations, metrics, optim, parallel
from alexnet_jax.data import augment, pipeline, preprocessing
from alexnet_jax.models import AlexNet
from alexnet_jax.train_state import (
  TrainState,
  abstract_train_state,
  create_model,
  create_optimizer,
  tower_wise,
)

# Of (images, index, step).
Noise = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Program:
  """What a step needs and does not change.

  Attributes:
    model: the network, over the towers that a device holds.
    plan: how the work is spread.
    process: turns pixels into inputs.
    noise: of colours.
    dropout_key: keys the masks, with each example's index.
    optimizer: the update rule.
    rates: every parameter's rate, of (step, scale, params).
    tower_wise: marks the state's leaves that have a tower axis.
    deterministic: whether all operations must be, see `parallel.Plan`.
  """

  model: AlexNet
  plan: parallel.Plan
  process: preprocessing.Preprocessing
  noise: Noise
  dropout_key: jax.Array
  optimizer: optax.GradientTransformationExtraArgs
  rates: optim.RatesFn
  tower_wise: TrainState
  deterministic: bool

  def compile(
    self, *, donate: bool = True
  ) -> Callable[[TrainState, pipeline.Batch], tuple[TrainState, metrics.Sums]]:
    """`train_step` on the plan's devices, of what they hold.

    Args:
      donate: whether the state's buffers are reused.
    """
    return self.plan.compile(
      functools.partial(train_step, self),
      deterministic=self.deterministic,
      donate=donate,
    )

  def put_state(self, state: TrainState) -> TrainState:
    """The canonical state, spread over the devices."""
    return self.plan.put_state(state, self.tower_wise)

  def get_state(self, state: TrainState) -> TrainState:
    """The other way."""
    return self.plan.get_state(state, self.tower_wise)


def create_program(
  config: ml_collections.ConfigDict,
  plan: parallel.Plan,
  process: preprocessing.Preprocessing,
  steps: durations.Steps,
) -> Program:
  """Puts together a run's program."""
  state = abstract_train_state(config)
  return Program(
    model=create_model(config, plan.towers),
    plan=plan,
    process=process,
    noise=_create_noise(config, process, steps),
    dropout_key=augment.random_key(config.seed, 'dropout'),
    optimizer=create_optimizer(config, state.params),
    rates=optim.create_rates_fn(config, steps.of_epoch, steps.total),
    tower_wise=tower_wise(config, state),
    deterministic=config.deterministic,
  )


def _create_noise(
  config: ml_collections.ConfigDict,
  process: preprocessing.Preprocessing,
  steps: durations.Steps,
) -> Noise:
  kind = config.data.color_noise
  if kind == 'none':
    return lambda images, index, step: images
  key = augment.random_key(config.seed, 'color_noise')
  epochs = config.data.color_noise_epochs
  end = steps.of_epoch(epochs) if epochs else steps.total

  def noise(images: jax.Array, index: jax.Array, step: jax.Array) -> jax.Array:
    def noisy(x: jax.Array) -> jax.Array:
      return augment.color_noise(x, key, index, process, kind)

    return jax.lax.cond(step < end, noisy, lambda x: x, images)

  return noise


def train_step(
  program: Program, state: TrainState, batch: pipeline.Batch
) -> tuple[TrainState, metrics.Sums]:
  """The per-device program of one update.

  Every device differentiates its own share of the loss. Devices that hold
  towers of the same slice compute the same loss, so each takes 1 / num_replicas
  of it; the shares then add up to the mean over the global batch.

  Args:
    program: what does not change during a run.
    state: on this device; its buffers are reused.
    batch: this device's slice, see `pipeline.train_batches`.

  Returns:
    The next state, and the sums of this step's metrics.
  """
  plan, labels = program.plan, batch['label']
  global_batch = labels.shape[0] * plan.num_slices
  images = program.process(
    batch['image'],
    lambda x: program.noise(x, batch['index'], state.step),
  )

  def loss_share(params):
    logits = program.model.apply(
      {'params': params},
      images,
      batch['index'],
      train=True,
      rngs={'dropout': program.dropout_key},
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.sum() / (global_batch * plan.num_replicas), logits

  gradients, logits = jax.grad(loss_share, has_aux=True)(state.params)
  gradients = plan.sum_gradients(gradients, program.tower_wise.params)
  sums = plan.sum_slices(
    metrics.sums(jax.nn.log_softmax(logits), labels, jnp.ones(len(labels)))
  )
  # A sum is not finite where a term is not, and costs less than a norm. Such a
  # step changes nothing: with a rate of 0, weights and velocities are held.
  is_finite = jnp.isfinite(optax.tree.sum(gradients) + sums['loss'])
  is_bad = plan.any(~is_finite)
  rate_scale = jnp.where(is_bad, 0.0, state.rate_scale)
  rates = program.rates(state.step, rate_scale, state.params)
  updates, opt_state = program.optimizer.update(
    gradients, state.opt_state, state.params, rates=rates
  )
  is_first_bad = is_bad & (state.first_bad_step < 0)
  state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    rate_scale=state.rate_scale,
    window=jax.tree.map(jnp.add, state.window, sums),
    first_bad_step=jnp.where(
      is_first_bad, state.step + 1, state.first_bad_step
    ),
  )
  return state, sums
