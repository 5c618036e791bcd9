"""Training: the step, and the loop around it."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import optax
import tqdm

from alexnet_jax import (
  checkpoint,
  errors,
  fine_tune,
  hosts,
  metrics,
  optim,
  parallel,
  profiler,
  trained,
  validate,
)
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import augment, pipeline, prepare, preprocessing, records
from alexnet_jax.evaluate import create_evaluator
from alexnet_jax.interruption import Interruption
from alexnet_jax.models import AlexNet
from alexnet_jax.train_state import (
  TrainState,
  abstract_train_state,
  create_model,
  create_optimizer,
  create_train_state,
  tower_wise,
)

# Unbounded dispatch of collectives can stall virtual CPU devices.
_STEPS_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Steps:
  """A run's durations in steps.

  Attributes:
    total: updates of the whole run.
    every: how many lie between two logs, evaluations and checkpoints; with 0
      they happen at the end only.
    of_epoch: turns a number of epochs into steps.
  """

  total: int
  every: dict[str, int]
  of_epoch: Callable[[float], int]

  def due(self, step: int) -> dict[str, bool]:
    """What is to be done after `step`: all of it after the last."""
    return {
      what: step == self.total or (every > 0 and step % every == 0)
      for what, every in self.every.items()
    }


def count_steps(config: ml_collections.ConfigDict, num_examples: int) -> Steps:
  """Turns epochs into steps, once; a step value > 0 overrides its epochs."""
  of_epoch = functools.partial(
    optim.epochs_to_steps,
    num_examples=num_examples,
    batch_size=config.batch_size,
  )

  def every(what: str) -> int:
    epochs = config[f'{what}_every_epochs']
    return config[f'{what}_every_steps'] or of_epoch(epochs)

  return Steps(
    total=config.train_steps or of_epoch(config.num_epochs),
    every={what: every(what) for what in ('log', 'eval', 'checkpoint')},
    of_epoch=of_epoch,
  )


def train_step(
  program: 'Program', state: TrainState, batch: pipeline.Batch
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


@dataclasses.dataclass(frozen=True)
class Program:
  """What a step needs and does not change.

  Attributes:
    model: the network, over the towers that a device holds.
    plan: how the work is spread.
    process: turns pixels into inputs.
    noise: colour noise of (images, index, step).
    dropout_key: keys the masks, with each example's index.
    optimizer: the update rule.
    rates: every parameter's rate, of (step, scale, params).
    tower_wise: marks the state's leaves that have a tower axis.
  """

  model: AlexNet
  plan: parallel.Plan
  process: preprocessing.Preprocessing
  noise: 'Noise'
  dropout_key: jax.Array
  optimizer: optax.GradientTransformationExtraArgs
  rates: optim.RatesFn
  tower_wise: TrainState


def create_program(
  config: ml_collections.ConfigDict,
  plan: parallel.Plan,
  process: preprocessing.Preprocessing,
  steps: Steps,
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
  )


Noise = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _create_noise(
  config: ml_collections.ConfigDict,
  process: preprocessing.Preprocessing,
  steps: Steps,
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


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str
) -> TrainState:
  """Trains, or goes on where the workdir's newest checkpoint is.

  Args:
    config: see `configs/common.py`.
    workdir: directory of the run.

  Returns:
    The final canonical state.

  Raises:
    UserError: where config, data, devices and workdir do not fit each other,
      or the numbers stop being finite.
  """
  validate.check_config(config)
  workdir = pathlib.Path(workdir).expanduser().resolve()
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  parallel.check_batch_size(plan, config.batch_size)
  origin = None
  if config.init_from and not workdir_lib.has_checkpoint(workdir):
    like = abstract_train_state(config).params
    origin = fine_tune.read_origin(config, like)
  prepared = prepare.open_or_prepare(config.data)
  _check_num_classes(config.model.num_classes, prepared)
  num_examples = pipeline.num_train_examples(prepared, config.data)
  steps = count_steps(config, num_examples)
  # Mistakes in network and schedule stop here, before anything is written.
  optim.create_rates_fn(config, steps.of_epoch, steps.total)
  abstract_train_state(config)
  with contextlib.ExitStack() as stack:
    stack.enter_context(workdir_lib.alone(workdir))
    process = workdir_lib.start(
      workdir,
      config,
      prepared,
      origin.process if origin else None,
    )
    program = create_program(config, plan, process, steps)
    evaluator = create_evaluator(config, plan, process)
    run_step = plan.compile(
      functools.partial(train_step, program),
      deterministic=config.deterministic,
      donate=True,
    )
    interruption = stack.enter_context(Interruption())
    checkpointer = stack.enter_context(
      checkpoint.Checkpointer(workdir, config.keep_checkpoints)
    )
    state, progress = _restore_or_create(
      checkpointer, config, process, origin, prepared.class_names
    )
    first_step, plateau = int(state.step), progress.plateau
    left = steps.total - first_step + progress.is_pending
    if progress.is_over or left <= 0:
      hosts.say(f'{workdir} is complete at step {first_step}.')
      return state
    hosts.say(_introduction(config, plan, state, prepared, steps))
    state = plan.put_state(state, program.tower_wise)
    writer = metrics.NoWriter()
    if hosts.is_first():
      writer = metrics.MetricsWriter(workdir, first_step, progress.rows)
      stack.enter_context(writer)
    bar = stack.enter_context(
      tqdm.tqdm(
        total=steps.total,
        initial=first_step,
        unit='step',
        disable=not hosts.is_first(),
      )
    )
    batches = pipeline.train_batches(
      prepared,
      config.data,
      seed=config.seed,
      batch_size=config.batch_size,
      start_step=first_step,
      end_step=steps.total,
      share=plan.share(config.batch_size),
    )
    trace = stack.enter_context(
      profiler.Profiler(
        workdir,
        config.profile_steps if hosts.is_first() else 0,
        first_step,
        steps.total,
      )
    )
    clock = metrics.Clock(config.batch_size)
    in_flight = collections.deque()
    bar.set_description('compile')

    def advance(step: int, batch: pipeline.Batch) -> TrainState:
      batch = plan.put_batch(batch)
      if len(in_flight) == _STEPS_IN_FLIGHT:
        jax.block_until_ready(in_flight.popleft())
      trace.before(step, state, clock)
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        new_state, sums = run_step(state, batch)
      trace.after(step, new_state, clock)
      in_flight.append(sums)
      bar.update()
      if step == first_step + 1:
        bar.set_description('train')
        clock.restart()  # the first step compiled
      else:
        clock.tick()
      return new_state

    def check_finite() -> None:
      bad_step = int(plan.get(state.first_bad_step))
      _check_finite(bad_step, last_loss, checkpointer.latest_step())

    def save(step: int, progress: Progress) -> None:
      check_finite()
      with clock.paused():
        canonical = plan.get_state(state, program.tower_wise)
        checkpointer.save(step, canonical, progress.extra(process))

    last_loss = progress.last_loss
    numbered = enumerate(batches, first_step + 1)
    if progress.is_pending:
      numbered = itertools.chain([(first_step, None)], numbered)
    try:
      for step, batch in numbered:
        if batch is not None:
          state = advance(step, batch)
        interruption.check_step(step)

        due = steps.due(step)
        if not any(due.values()):
          continue
        epoch = step * config.batch_size / num_examples
        check_finite()
        if due['eval']:
          with clock.paused():
            values, timing = evaluator(
              state.params, prepared, 'validation', interruption.check
            )
          _check_loss(values['loss'], step)
          writer.write(step, epoch, 'validation', values, timing)
          hosts.say(
            f'epoch {epoch:.4g}, validation: {_summary(values, timing)}'
          )
          plateau = _next_plateau(config.schedule, plateau, values)
          scale = jnp.float32(plateau.scale)
          state = _replace(plan, state, rate_scale=scale)
        is_over = plateau.is_over
        if due['log'] or is_over:
          values = metrics.means(plan.get(state.window))
          timing = clock.read()
          writer.write(step, epoch, 'train', values, timing)
          bar.set_postfix_str(_summary(values, timing))
          state = _replace(plan, state, window=metrics.zeros())
          clock.restart()
          last_loss = values['loss']
          is_over |= values['top1_error'] < config.stop_at_train_error
        if due['checkpoint'] or is_over:
          rows = writer.rows(step)
          save(step, Progress(plateau, rows, is_over=is_over))
        if is_over:
          hosts.say(f'{_reason(plateau)}: done at step {step}.')
          break
    except errors.Interrupted as interrupted:
      # What was due after this step has not been done.
      if step != checkpointer.latest_step():
        save(step, Progress(plateau, is_pending=True))
      raise errors.Interrupted(
        interrupted.number,
        f'stopped after step {step}, which is saved; the same command goes on.',
      ) from None
    return plan.get_state(state, program.tower_wise)


def _check_num_classes(given: int, prepared: records.PreparedSet) -> None:
  actual = len(prepared.class_names)
  if given != actual:
    raise errors.UserError(
      f'model.num_classes={given} but {prepared.directory} has {actual} '
      'classes: name the data after the colon of --config, as in '
      '--config=configs/alexnet.py:cifar10, and all that follows is set.'
    )


def _introduction(
  config: ml_collections.ConfigDict,
  plan: parallel.Plan,
  state: TrainState,
  prepared: records.PreparedSet,
  steps: Steps,
) -> str:
  num_params = sum(x.size for x in jax.tree.leaves(state.params))
  return (
    f'{num_params:,} parameters in {config.model.towers} tower(s) on '
    f'{plan.num_devices} device(s); '
    f'{pipeline.num_train_examples(prepared, config.data):,} training images '
    f'of {prepared.directory}; step {int(state.step)} of '
    f'{steps.total}. Compiling may take a minute.'
  )


def _restore_or_create(
  checkpointer: checkpoint.Checkpointer,
  config: ml_collections.ConfigDict,
  process: preprocessing.Preprocessing,
  origin: trained.Stored | None,
  class_names: list[str],
) -> tuple[TrainState, 'Progress']:
  """The newest checkpoint's canonical state, or a new one."""
  checkpointer.recover()
  if not hosts.agree(checkpointer.latest_step() is not None):
    state, progress = create_train_state(config), Progress(optim.Plateau())
    if origin:
      fine_tune.check_preprocessing(config, origin, process)
      params = fine_tune.first_params(config, state.params, origin, class_names)
      state = state.replace(params=params)
      # The origin may train on: from here, this run is its own.
      checkpointer.save(0, state, progress.extra(process))
      checkpointer.wait()
    return state, progress
  state, extra = checkpointer.restore_newest(abstract_train_state(config))
  process.check_digest(extra['preprocessing'])
  return state, Progress.from_extra(extra)


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far a run is, beside its state.

  Attributes:
    plateau: of the 'plateau' schedule.
    rows: of metrics.jsonl, its step's; None where they were not kept.
    is_over: whether the run has ended before its last step.
    is_pending: whether its step was made, but not what was due after it.
  """

  plateau: optim.Plateau
  rows: Sequence[dict] | None = ()
  is_over: bool = False
  is_pending: bool = False

  @property
  def last_loss(self) -> float | None:
    """Of training, where it was logged at this step."""
    rows = self.rows or ()
    return next((r['loss'] for r in rows if r['split'] == 'train'), None)

  def extra(self, process: preprocessing.Preprocessing) -> dict:
    """What a checkpoint has beside the state."""
    return {'preprocessing': process.digest(), **dataclasses.asdict(self)}

  @classmethod
  def from_extra(cls, extra: dict) -> 'Progress':
    """The other way; a run older than a field has its default."""
    plateau = optim.Plateau(**extra['plateau'])
    is_over = extra.get('is_over', plateau.is_over)
    is_pending = extra.get('is_pending', False)
    return cls(plateau, extra.get('rows'), is_over, is_pending)


def _reason(plateau: optim.Plateau) -> str:
  if plateau.is_over:
    return 'The validation error has stopped improving'
  return 'The training error is below stop_at_train_error'


def _check_finite(
  first_bad_step: int,
  last_loss: float | None,
  newest: int | None,
) -> None:
  if first_bad_step >= 0:
    raise errors.UserError(
      f'loss or gradients of step {first_bad_step} were not finite (last '
      f'logged loss: {last_loss}; newest checkpoint: step {newest}); start a '
      'new workdir with a lower optimizer.learning_rate.'
    )


def _check_loss(loss: float, step: int) -> None:
  if not math.isfinite(loss):
    raise errors.UserError(
      f'validation loss after step {step} is not finite but {loss}; start a '
      'new workdir with a lower optimizer.learning_rate.'
    )


def _next_plateau(
  schedule: ml_collections.ConfigDict,
  plateau: optim.Plateau,
  values: dict[str, float],
) -> optim.Plateau:
  if schedule.name != 'plateau':
    return plateau
  return plateau.after(
    values['top1_error'], schedule.min_delta, schedule.patience
  )


def _replace(plan: parallel.Plan, state: TrainState, **values) -> TrainState:
  """Replaces fields that have no tower axis by host values."""
  nowhere = jax.tree.map(lambda _: False, values)
  return state.replace(**plan.put_state(values, nowhere))


def _summary(values: dict[str, float], timing: dict[str, float]) -> str:
  return (
    f'loss {values["loss"]:.4f}, top-1 error {values["top1_error"]:.4f}, '
    f'top-5 error {values["top5_error"]:.4f}, '
    f'{timing["examples_per_second"]:.0f} images/s'
  )
