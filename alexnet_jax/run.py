"""A run: its programs, compiled for the devices, and its durations in steps.

Training, evaluation, tools, tests and benchmarks all get theirs from
`build_run`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from flax import traverse_util

from alexnet_jax import errors, metrics, optim, parallel, train_step
from alexnet_jax.data import augment, preprocessing
from alexnet_jax.train_step import TrainState

Tree = Any


@dataclasses.dataclass(frozen=True)
class Steps:
  """Durations of a run in steps.

  Attributes:
    total: Updates of the whole run.
    every: Steps between two logs, evaluations and checkpoints ('log', 'eval',
      'checkpoint'); 0 for one at the end only.
    epoch_examples: Images of what counts as an epoch.
    from_epochs: Function that turns a number of epochs into steps.
  """

  total: int
  every: dict[str, int]
  epoch_examples: int
  from_epochs: Callable[[float], int]

  def due(self, step: int) -> set[str]:
    """Returns what is to be done after `step`: all of it after the last."""
    return {
      what
      for what, every in self.every.items()
      if step == self.total or (every > 0 and step % every == 0)
    }


def count_steps(config: ml_collections.ConfigDict, num_examples: int) -> Steps:
  """Turns epochs into steps, once; a step value > 0 overrides its epochs.

  Args:
    config: Config of the run.
    num_examples: Number of training images.
  """
  shortest = config.min_epoch_steps * config.batch_size
  num_examples = max(num_examples, shortest)
  from_epochs = functools.partial(
    optim.epochs_to_steps,
    num_examples=num_examples,
    batch_size=config.batch_size,
  )

  def every(what: str) -> int:
    epochs = config[f'{what}_every_epochs']
    return config[f'{what}_every_steps'] or from_epochs(epochs)

  return Steps(
    total=config.train_steps or from_epochs(config.num_epochs),
    every={what: every(what) for what in ('log', 'eval', 'checkpoint')},
    epoch_examples=num_examples,
    from_epochs=from_epochs,
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """The programs of a run and the constants that they are made of.

  Programs are compiled at their first call. They take and return trees on the
  devices, as `plan.put_batch` and `put_state` make them.

  Attributes:
    config: Config of the run.
    plan: Plan that spreads the work over devices.
    preprocessing: Mean image, scale and components of colour.
    steps: Durations in steps.
    model: Network over the towers that one device holds.
    by_tower: Tree like TrainState, True where a leaf has a tower axis.
    learning_rates: Rates of all parameters, a function of (step, scale,
      params).
  """

  config: ml_collections.ConfigDict
  plan: parallel.Plan
  preprocessing: preprocessing.Preprocessing
  steps: Steps
  model: nn.Module
  by_tower: TrainState
  learning_rates: optim.LearningRateFn

  @functools.cached_property
  def train_step(
    self,
  ) -> Callable[[TrainState, Tree, Tree], tuple[TrainState, metrics.Sums]]:
    """Program of (state, batch, rate_scale); it reuses the state's buffers."""
    return self._compile(self.train_program, donate=True)

  @functools.cached_property
  def train_program(self) -> Callable:
    """Per-device program of `train_step`, not compiled."""
    optimizer = self.config.optimizer
    lars = functools.partial(
      optim.lars_rates, eta=optimizer.lars_eta, decay=optimizer.weight_decay
    )
    return functools.partial(
      train_step.train_step,
      model=self.model,
      plan=self.plan,
      preprocess=self._preprocess,
      dropout_key=augment.random_key(self.config.seed, 'dropout'),
      optimizer=train_step.create_optimizer(self.config, self.by_tower.params),
      learning_rates=self.learning_rates,
      by_tower=self.by_tower.params,
      label_smoothing=optimizer.label_smoothing,
      local_rates=lars if optimizer.lars_eta else None,
      accumulate_steps=self.config.accumulate_steps,
    )

  @functools.cached_property
  def eval_step(self) -> Callable[[Tree, Tree], metrics.Sums]:
    """Program of (variables, batch): sums of metrics over the global batch."""
    program = functools.partial(
      train_step.eval_step,
      model=self.model,
      plan=self.plan,
      preprocess=self.preprocessing,
      num_views=self.config.eval.views,
    )
    return self._compile(program)

  @functools.cached_property
  def predict(self) -> Callable[[Tree, jax.Array], jax.Array]:
    """Program of (variables, images [N, S, S, 3]): log probabilities."""
    program = functools.partial(
      train_step.predict,
      model=self.model,
      preprocess=self.preprocessing,
      num_views=self.config.eval.views,
    )
    return self._compile(program)

  def _compile(self, program: Callable, *, donate: bool = False) -> Callable:
    return self.plan.compile(
      program, deterministic=self.config.deterministic, donate=donate
    )

  def _preprocess(
    self, images: jax.Array, index: jax.Array, step: jax.Array
  ) -> jax.Array:
    """Returns inputs of training: mean, then colour noise, then scale."""
    data = self.config.data
    if data.color_noise == 'none':
      return self.preprocessing(images)
    key = augment.random_key(self.config.seed, 'color_noise')
    epochs = data.color_noise_epochs
    end = self.steps.from_epochs(epochs) if epochs else self.steps.total

    def add_noise(x: jax.Array) -> jax.Array:
      return augment.color_noise(
        x, key, index, self.preprocessing, data.color_noise
      )

    return self.preprocessing(
      images, lambda x: jax.lax.cond(step < end, add_noise, lambda x: x, x)
    )

  def learning_rate(self, step: int, rate_scale: float) -> float:
    """Returns the rate of weights without a multiplier (steps count from 1)."""
    weights = {'': {'kernel': 0.0}}
    rates = self.learning_rates(step - 1, rate_scale, weights)
    return float(rates['']['kernel'])

  def put_state(self, state: TrainState) -> TrainState:
    """Spreads a canonical state over the devices."""
    return self.plan.put_state(state, self.by_tower)

  def get_state(self, state: TrainState) -> TrainState:
    """Returns the canonical state of what the devices hold."""
    return self.plan.get_state(state, self.by_tower)

  def put_variables(self, variables: Tree) -> Tree:
    """Spreads canonical 'params' and 'batch_stats' over the devices."""
    return self.plan.put_state(variables, self.by_tower.variables)

  def put_everywhere(self, tree: Tree) -> Tree:
    """Puts values without a tower axis on every device."""
    nowhere = jax.tree.map(lambda _: False, tree)
    return self.plan.put_state(tree, nowhere)


def build_run(
  config: ml_collections.ConfigDict,
  inputs: preprocessing.Preprocessing,
  num_examples: int = 1,
) -> Run:
  """Puts a run together; writes nothing and compiles nothing yet.

  Args:
    config: Config of the run, see `validate.check_config`.
    inputs: Preprocessing of the run.
    num_examples: Training images of an epoch, for a run that is trained.

  Raises:
    UserError: If the visible devices do not fit `model.towers`.
  """
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  steps = count_steps(config, num_examples)
  abstract = train_step.abstract_train_state(config)
  if config.model.name != 'alexnet':  # whose table was checked
    _check_names(config, abstract.params)
  return Run(
    config=config,
    plan=plan,
    preprocessing=inputs,
    steps=steps,
    model=train_step.create_model(config, plan.towers),
    by_tower=train_step.tower_wise(config, abstract),
    learning_rates=optim.create_learning_rate_fn(
      config, steps.from_epochs, steps.total
    ),
  )


def _check_names(config: ml_collections.ConfigDict, params: Tree) -> None:
  """Raises UserError for a rate or a decay of parameters that do not exist."""
  paths = traverse_util.flatten_dict(params, sep='/')
  for group, fields in (
    ('optimizer', ('rate_multipliers', 'decay_multipliers')),
    ('schedule', ('layer_drops',)),
  ):
    for field in fields:
      for name in config[group][field]:
        if not any(f'{path}/'.startswith(f'{name}/') for path in paths):
          raise errors.UserError(
            f'{group}.{field} names {name!r}, which is no parameter; choose '
            f'from {", ".join(params)}, or a part of one, as {min(paths)}.'
          )
