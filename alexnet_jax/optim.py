"""The paper's update rule, with a rate and a weight decay for each layer.

    v <- momentum * v - rate * (decay * w + gradient);   w <- w + v

(paper section 5). The rate is inside the velocity, so a drop leaves the old
velocity as it is: decay, then rate, then momentum, unlike `optax.sgd`. Biases
have their own rate and no decay (CHM weights.cu, CC1 LayerParams). For large
batches, `lars_rates` gives each array of parameters a rate of its own.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

Tree = Any


def update_rule(
  momentum: float,
  decays: Tree,
  *,
  nesterov: bool = False,
  rate_inside: bool = True,
) -> optax.GradientTransformation:
  """Returns the rule above, or the one of `optax.sgd`, as an optax chain.

  Its `update` takes one more argument, `rates`: a scalar for each parameter.

  Args:
    momentum: Share of the velocity that is kept, 0.9 in the paper.
    decays: Weight decay of each parameter.
    nesterov: Whether momentum is Nesterov's.
    rate_inside: Whether velocities have the rate in them. Without, weights move
      by rate times velocity, as in `optax.sgd` and PyTorch.
  """
  velocity = _hold_where_rate_is_zero(optax.trace(momentum, nesterov), nesterov)
  rates = _scale_by_rates()
  last = (rates, velocity) if rate_inside else (velocity, rates)
  return optax.chain(_add_decayed_weights(decays), *last)


def _add_decayed_weights(decays: Tree) -> optax.GradientTransformation:
  # optax.add_decayed_weights has one decay for all parameters.
  return optax.stateless(
    lambda updates, params: jax.tree.map(
      lambda g, w, decay: g + decay * w, updates, params, decays
    )
  )


def _scale_by_rates() -> optax.GradientTransformationExtraArgs:
  def update(updates, state, params=None, *, rates, **_):
    del params
    return jax.tree.map(lambda u, rate: -rate * u, updates, rates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _hold_where_rate_is_zero(
  momentum: optax.GradientTransformation, nesterov: bool
) -> optax.GradientTransformationExtraArgs:
  """Keeps weight and velocity as they are where the rate is 0.

  (CHM weights.cu.)
  """

  def update(updates, state, params=None, *, rates, **_):
    moved, new_state = momentum.update(updates, state, params)
    velocity = jax.tree.map(
      lambda new, old, rate: jnp.where(rate > 0, new, old),
      new_state.trace,
      state.trace,
      rates,
    )
    if not nesterov:
      moved = velocity  # so that XLA updates it once, in place
    moved = jax.tree.map(
      lambda v, rate: jnp.where(rate > 0, v, jnp.zeros_like(v)), moved, rates
    )
    return moved, new_state._replace(trace=velocity)

  return optax.GradientTransformationExtraArgs(momentum.init, update)


def decay_tree(params: Tree, optimizer: ml_collections.ConfigDict) -> Tree:
  """Returns the weight decay of every parameter.

  Biases, and scales of batch normalisation, have none unless
  `optimizer.decay_biases` is set.
  """

  def decay(path, _):
    if path[-1].key != 'kernel' and not optimizer.decay_biases:
      return 0.0
    factors = optimizer.decay_multipliers
    multipliers = [factors.get(name, 1.0) for name in _names(path)]
    return optimizer.weight_decay * math.prod(multipliers)

  return jax.tree_util.tree_map_with_path(decay, params)


def _names(path: tuple) -> list[str]:
  """Returns the names that address a parameter: 'conv1' and 'conv1/kernel'."""
  keys = [part.key for part in path]
  return ['/'.join(keys[:end]) for end in range(1, len(keys) + 1)]


def epochs_to_steps(
  epochs: float | Fraction, num_examples: int, batch_size: int
) -> int:
  """Returns ceil(epochs * num_examples / batch_size), in exact arithmetic."""
  return math.ceil(Fraction(str(epochs)) * num_examples / batch_size)


LearningRateFn = Callable[[jax.Array, jax.Array, Tree], Tree]


def create_learning_rate_fn(
  config: ml_collections.ConfigDict,
  steps_from_epochs: Callable[[float | Fraction], int],
  num_steps: int,
) -> LearningRateFn:
  """Returns the learning rate of every parameter as a function of the step.

  Args:
    config: Config of the run, whose `schedule` has a form (see `_form`),
      drops on top of it, a warm-up before it, and further drops by layer.
    steps_from_epochs: Function that turns a number of epochs into steps.
    num_steps: Steps of the whole run.

  Returns:
    A function of (step, scale, params) that returns a scalar for each
    parameter. `scale` multiplies every rate, see `Plateau`.
  """
  schedule, optimizer = config.schedule, config.optimizer

  def drops(pairs) -> optax.Schedule:
    return _piecewise((steps_from_epochs(epoch), f) for epoch, f in pairs)

  def steps_from_share(share: Fraction) -> int:
    # The same step as that of a drop at this epoch.
    if config.train_steps:
      return math.ceil(config.train_steps * share)
    return steps_from_epochs(Fraction(str(config.num_epochs)) * share)

  def factor_of(schedule: ml_collections.ConfigDict) -> optax.Schedule:
    form = _form(schedule, num_steps, steps_from_share)
    dropped = drops(schedule.drops)
    return warmed_up(lambda step: form(step) * dropped(step))

  def warmed_up(factor: optax.Schedule) -> optax.Schedule:
    # Not optax.join_schedules, which starts the second schedule at its step 0.
    end = steps_from_epochs(config.schedule.warmup_epochs)
    if not end:
      return factor
    climb = optax.linear_schedule(config.schedule.warmup_start, 1.0, end)
    return lambda step: jnp.where(step < end, climb(step), factor(step))

  initial_bias_rate = optimizer.learning_rate * optimizer.bias_rate_multiplier
  weight_factor = factor_of(schedule)
  bias_factor = factor_of(schedule.biases if schedule.biases.name else schedule)
  layer_drops = {name: drops(p) for name, p in schedule.layer_drops.items()}

  def rates(step: jax.Array, scale: jax.Array, params: Tree) -> Tree:
    weight_rate = optimizer.learning_rate * weight_factor(step) * scale
    bias_rate = initial_bias_rate * bias_factor(step) * scale

    def rate(path, _):
      is_weight = path[-1].key in ('kernel', 'scale')
      result = weight_rate if is_weight else bias_rate
      for name in _names(path):
        factor = optimizer.rate_multipliers.get(name, 1.0)
        factor *= layer_drops[name](step) if name in layer_drops else 1.0
        result = factor * result
      return result

    return jax.tree_util.tree_map_with_path(rate, params)

  return rates


def lars_rates(
  rates: Tree, weights: Tree, gradients: Tree, eta: float, decay: float
) -> Tree:
  """Returns rates times eta |w| / (|g| + decay |w|), or 1 where a norm is 0.

  (LARS: arXiv 1708.03888, Algorithm 1, and NVCaffe's sgd_solver.cpp.)
  `optax.lars` divides by |g + decay w| instead.

  Args:
    rates: Rate of each parameter.
    weights: Squared norm |w|^2 of each.
    gradients: Squared norm |g|^2 of each gradient, without decay.
    eta: Trust coefficient.
    decay: Weight decay of the network, with no layer's factor.
  """

  def scaled(rate: jax.Array, w2: jax.Array, g2: jax.Array) -> jax.Array:
    w, g = jnp.sqrt(w2), jnp.sqrt(g2)
    ratio = eta * w / (g + decay * w)
    return rate * jnp.where((w > 0) & (g > 0), ratio, 1.0)

  return jax.tree.map(scaled, rates, weights, gradients)


def _piecewise(pairs: Iterable[tuple[int, float]]) -> optax.Schedule:
  """Returns a schedule that starts at 1 and takes each factor at its step."""
  factors = {}
  for step, factor in pairs:  # several may fall on one step of a short run
    factors[step] = factors.get(step, 1.0) * factor
  return optax.piecewise_constant_schedule(1.0, factors)


def _form(
  schedule: ml_collections.ConfigDict,
  num_steps: int,
  steps_from_share: Callable[[Fraction], int],
) -> optax.Schedule:
  """Returns the factor of the first rate as a function of the step.

  Where a share p of the run is done, with a total factor F and S levels, it
  is (CHM src/lr.cu, where p moves on once in a data file)

      linear   (1 - p) + p / F
      cosine   (1 + cos(pi p)) / 2
      poly     (1 - p)^power
      inverse  (1 + p)^(-power)
      exp      F^(-p)
      dexp     r(i) = F^(-i / (S - 1)) in level i, from p = i / S on
      jdexp    sqrt(r(i) r(i - 1)) in the second half of each level i >= 1
               where .2 < p < .9, otherwise as dexp

  and 1 for 'epochs' and 'plateau'. CHM has two kinds of jdexp; this is the
  second, which it compiles.

  Args:
    schedule: `config.schedule`, or its `biases`.
    num_steps: Steps of the whole run.
    steps_from_share: Function that turns a share of the run into steps.
  """
  factor, levels = schedule.total_factor, schedule.levels
  if schedule.name == 'linear':
    return optax.linear_schedule(1.0, 1 / factor, num_steps)
  if schedule.name == 'cosine':
    return optax.cosine_decay_schedule(1.0, num_steps)
  if schedule.name == 'poly':
    return optax.polynomial_schedule(1.0, 0.0, schedule.power, num_steps)
  if schedule.name == 'inverse':
    return lambda step: (1 + step / num_steps) ** -schedule.power
  if schedule.name == 'exp':
    return optax.exponential_decay(1.0, num_steps, 1 / factor)
  if schedule.name not in ('dexp', 'jdexp'):
    return optax.constant_schedule(1.0)
  changes = [(Fraction(level, levels), 1.0) for level in range(1, levels)]
  if schedule.name == 'jdexp':
    changes += _jumps(levels)
  fall = factor ** (-1 / (levels - 1))
  return _piecewise((steps_from_share(p), fall**n) for p, n in changes)


def _jumps(levels: int) -> list[tuple[Fraction, float]]:
  """Returns the shares p at which jdexp jumps up, and back down.

  Each has its size in falls from level to level.
  """
  jumps = []
  for level in range(1, levels):
    start = max(Fraction(2 * level + 1, 2 * levels), Fraction(1, 5))
    end = min(Fraction(level + 1, levels), Fraction(9, 10))
    if start < end:
      jumps += [(start, -0.5), (end, 0.5)]
  return jumps


@dataclasses.dataclass(frozen=True)
class Plateau:
  """State of the paper's rule: a tenth when the error stops improving.

  (Section 5; done by hand in 2012.) After `patience` evaluations in a row that
  are not below best - min_delta the rate drops, three times; then the run ends.
  A network that is still at chance has not stopped improving: no evaluation
  counts before the first error that is min_delta better than chance.

  Attributes:
    best: Lowest validation top-1 error so far, 1 at the start.
    waited: Evaluations since then or since the last drop.
    drops: Number of drops so far; more than `MAX_DROPS` end the run.
  """

  best: float = 1.0
  waited: int = 0
  drops: int = 0

  MAX_DROPS = 3

  def after(
    self, error: float, min_delta: float, patience: int, chance: float
  ) -> 'Plateau':
    """Returns the state after an evaluation.

    Args:
      error: Validation top-1 error.
      min_delta: Smallest decrease of the error that counts.
      patience: Evaluations without such a decrease before the rate drops.
      chance: Error of one who always says the most frequent class.
    """
    if error < min(self.best, chance) - min_delta:
      return Plateau(error, 0, self.drops)
    if self.is_at_chance(chance):
      return self
    if self.waited + 1 < patience:
      return Plateau(self.best, self.waited + 1, self.drops)
    return Plateau(self.best, 0, self.drops + 1)

  def is_at_chance(self, chance: float) -> bool:
    """Returns whether no evaluation has been better than chance so far."""
    return self.best >= chance

  @property
  def scale(self) -> float:
    """Factor of every learning rate."""
    return 10.0**-self.drops

  @property
  def is_over(self) -> bool:
    """Answers whether the run has to end."""
    return self.drops > self.MAX_DROPS
