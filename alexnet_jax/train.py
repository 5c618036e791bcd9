"""Training: the loop around the step, from a workdir's newest checkpoint on."""

import collections
import contextlib
import dataclasses
import gc
import math
import pathlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from alexnet_jax import (
  checkpoint,
  durations,
  errors,
  evaluate,
  fine_tune,
  hosts,
  metrics,
  metrics_log,
  optim,
  parallel,
  profiler,
  trained,
  validate,
)
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import pipeline, prepare, preprocessing, records
from alexnet_jax.interruption import Interruption
from alexnet_jax.train_state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from alexnet_jax.train_step import Program, create_program

# Unbounded dispatch of collectives can stall virtual CPU devices.
_STEPS_IN_FLIGHT = 2
# A loss within this share of ln(classes) is the loss of guessing.
_AT_CHANCE = 0.005


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
    Interrupted: after SIGTERM or SIGINT, when the step is saved.
  """
  job = _check(config, pathlib.Path(workdir).expanduser().resolve())
  with workdir_lib.lock(job.workdir), Interruption() as interruption:
    process = workdir_lib.start(
      job.workdir,
      config,
      job.prepared,
      job.origin.process if job.origin else None,
    )
    with checkpoint.Checkpointer(
      job.workdir, config.keep_checkpoints
    ) as checkpointer:
      return _train(job, process, checkpointer, interruption)


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


@dataclasses.dataclass(frozen=True)
class _Job:
  """What is to be done, as far as that can be told before it begins.

  Attributes:
    config: of the run.
    workdir: absolute path.
    plan: how the work is spread.
    prepared: the data.
    steps: when something is due.
    origin: of `init_from`, for a new run.
  """

  config: ml_collections.ConfigDict
  workdir: pathlib.Path
  plan: parallel.Plan
  prepared: records.PreparedSet
  steps: durations.Steps
  origin: trained.Stored | None


def _check(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> _Job:
  """Mistakes stop here, before anything is written."""
  validate.check_config(config)
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  parallel.check_batch_size(plan, config.batch_size)
  abstract_state = abstract_train_state(config)
  origin = None
  newest_step = workdir_lib.newest_step(workdir)
  if config.init_from and newest_step is None:
    origin = fine_tune.read_origin(config, abstract_state.params)
  prepared = prepare.open_or_prepare(config.data)
  if newest_step is None:
    prepare.check_origin(prepared, config.data.manual_dir)
  validate.check_num_classes(config, prepared)
  if origin:
    fine_tune.check_head(
      config, abstract_state.params, origin, prepared.class_names
    )
  num_examples = pipeline.num_train_examples(prepared, config.data)
  steps = durations.count_steps(config, num_examples)
  _check_total(workdir, newest_step or 0, steps.total)
  return _Job(config, workdir, plan, prepared, steps, origin)


def _train(
  job: _Job,
  process: preprocessing.Preprocessing,
  checkpointer: checkpoint.Checkpointer,
  interruption: Interruption,
) -> TrainState:
  """Trains in a workdir that is set up; returns the final canonical state."""
  state, progress = _restore_or_create(job, process, checkpointer)
  first_step, total = int(state.step), job.steps.total
  if progress.is_over or total - first_step + progress.is_pending <= 0:
    hosts.say(f'{job.workdir} is complete at step {first_step}.')
    return state
  hosts.say(_introduction(job, state))
  with contextlib.ExitStack() as stack:
    writer = stack.enter_context(
      metrics_log.create_writer(job.workdir, first_step, progress.rows)
    )
    num_traced = job.config.profile_steps if hosts.is_first() else 0
    trace = profiler.Profiler(job.workdir, num_traced, first_step, total)
    stepper = _Stepper(
      create_program(job.config, job.plan, process, job.steps),
      state,
      job.config.batch_size,
      stack.enter_context(_progress_bar(first_step, total)),
      stack.enter_context(trace),
    )
    del state  # the copy on the devices is enough
    loop = _Loop(
      job=job,
      stepper=stepper,
      evaluator=evaluate.create_evaluator(job.config, job.plan, process),
      checkpointer=checkpointer,
      writer=writer,
      interruption=interruption,
      plateau=progress.plateau,
    )
    stack.enter_context(_prompt_garbage_collection())
    loop.run(first_step, is_pending=progress.is_pending)
    return stepper.canonical_state()


@contextlib.contextmanager
def _prompt_garbage_collection() -> Iterator[None]:
  """Sets aside what there is, which is there to stay.

  Python looks through old objects when there are a quarter more of them, and
  libraries bring hundreds of thousands; each evaluation leaves some hundred
  that refer to each other.
  """
  gc.collect()
  gc.freeze()
  try:
    yield
  finally:
    gc.unfreeze()


class _Stepper:
  """Makes steps, and times and shows them.

  Attributes:
    program: of each.
    clock: of the logging window.
    bar: of progress.
  """

  def __init__(
    self,
    program: Program,
    state: TrainState,
    batch_size: int,
    bar: tqdm.tqdm,
    trace: profiler.Profiler,
  ):
    """`state` is the canonical one."""
    self.program = program
    self._state = program.put_state(state)
    self.clock = metrics_log.Clock(batch_size)
    self.bar = bar
    self._run_step = program.compile()
    self._trace = trace
    self._in_flight = collections.deque()

  def advance(self, step: int, batch: pipeline.Batch) -> None:
    """Starts step number `step`, when the last but one has ended."""
    batch = self.program.plan.put_batch(batch)
    is_first = not self._in_flight
    if len(self._in_flight) == _STEPS_IN_FLIGHT:
      jax.block_until_ready(self._in_flight.popleft())
    self._trace.before(step, self._state, self.clock)
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      self._state, sums = self._run_step(self._state, batch)
    self._trace.after(step, self._state, self.clock)
    self._in_flight.append(sums)
    self.bar.update()
    if is_first:  # which compiled
      self.bar.set_description('train')
      self.clock.restart()
    else:
      self.clock.tick()

  def replace(self, **values) -> None:
    """Replaces fields of the state that have no tower axis by host values."""
    nowhere = jax.tree.map(lambda _: False, values)
    new = self.program.plan.put_state(values, nowhere)
    self._state = self._state.replace(**new)

  @property
  def params(self):
    """Of the network, on the devices."""
    return self._state.params

  def window(self) -> metrics.Sums:
    """Sums of training metrics since they were last set to zero."""
    return self.program.plan.get(self._state.window)

  def first_bad_step(self) -> int:
    """The first whose numbers were not finite, or -1."""
    return int(self.program.plan.get(self._state.first_bad_step))

  def canonical_state(self) -> TrainState:
    """The state as a checkpoint holds it."""
    return self.program.get_state(self._state)


@dataclasses.dataclass
class _Loop:
  """The steps of a run, and what is due after each.

  Attributes:
    job: what is to be done.
    stepper: makes the steps.
    evaluator: of the validation split.
    checkpointer: of the workdir.
    writer: of metrics.
    interruption: asked after each step.
    plateau: of the 'plateau' schedule.
    is_first_epoch: Whether no row of a whole epoch has been logged yet.
  """

  job: _Job
  stepper: _Stepper
  evaluator: evaluate.Evaluator
  checkpointer: checkpoint.Checkpointer
  writer: metrics_log.MetricsWriter | metrics_log.NoWriter
  interruption: Interruption
  plateau: optim.Plateau
  is_first_epoch: bool = True

  def run(self, first_step: int, *, is_pending: bool) -> None:
    """To the last step, or to a reason to end before it.

    Args:
      first_step: which has been made.
      is_pending: whether what was due after that one has not been done.
    """
    try:
      for step in self._made(first_step, is_pending):
        self.interruption.check_step(step)
        if self._follow_up(step):
          break
    except errors.Interrupted as interrupted:
      # What was due after this step has not been done.
      if step != self.checkpointer.latest_step():
        self._save(step, is_pending=True)
      raise errors.Interrupted(
        interrupted.number,
        f'stopped after step {step}, which is saved; the same command goes on.',
      ) from None

  def _made(self, first_step: int, is_pending: bool) -> Iterator[int]:
    """Makes steps; yields the number of each."""
    if is_pending:
      yield first_step
    config = self.job.config
    batches = pipeline.train_batches(
      self.job.prepared,
      config.data,
      seed=config.seed,
      batch_size=config.batch_size,
      start_step=first_step,
      end_step=self.job.steps.total,
      share=self.job.plan.share(config.batch_size),
    )
    for step, batch in enumerate(batches, first_step + 1):
      self.stepper.advance(step, batch)
      yield step

  def _follow_up(self, step: int) -> bool:
    """Does what is due after a step; returns whether the run is over."""
    due = self.job.steps.due(step)
    if not any(due.values()):
      return False
    self._check_finite()
    if due['eval']:
      self._evaluate(step)
    is_over = self.plateau.is_over
    if due['log'] or is_over:
      is_over |= self._log(step) < self.job.config.stop_at_train_error
    if due['checkpoint'] or is_over:
      self._save(step, is_over=is_over)
    if is_over:
      hosts.say(f'{_reason(self.plateau)}: done at step {step}.')
    return is_over

  def _evaluate(self, step: int) -> None:
    with self.stepper.clock.paused():
      values, timing = self.evaluator(
        self.stepper.params,
        self.job.prepared,
        'validation',
        self.interruption.check,
      )
    _check_loss(values['loss'], step)
    epoch = self._write(step, 'validation', values, timing)
    hosts.say(f'epoch {epoch:.4g}, validation: {_summary(values, timing)}')
    if self.job.config.schedule.name == 'plateau':
      self._step_plateau(values['top1_error'])
    self.stepper.replace(rate_scale=jnp.float32(self.plateau.scale))

  def _step_plateau(self, error: float) -> None:
    schedule = self.job.config.schedule
    labels = self.job.prepared.open_split('validation').labels
    chance = 1 - np.bincount(labels).max() / len(labels)
    self.plateau = self.plateau.after(
      error, schedule.min_delta, schedule.patience, chance
    )
    if self.plateau.is_at_chance(chance):
      hosts.say(
        f'The network has not learnt yet: chance is an error of {chance:.4f}. '
        'The plateau rule waits until it has.'
      )

  def _log(self, step: int) -> float:
    """Ends a window of training; returns its top-1 error."""
    values = metrics.means(self.stepper.window())
    timing = self.stepper.clock.read()
    epoch = self._write(step, 'train', values, timing)
    if self.is_first_epoch and epoch >= 1:
      self.is_first_epoch = False
      _warn_at_chance(values['loss'], epoch, self.job.config)
    self.stepper.bar.set_postfix_str(_summary(values, timing))
    self.stepper.replace(window=metrics.zeros())
    self.stepper.clock.restart()
    return values['top1_error']

  def _write(self, step: int, split: str, values: dict, timing: dict) -> float:
    """Writes a row; returns its epoch."""
    config = self.job.config
    examples = pipeline.num_train_examples(self.job.prepared, config.data)
    epoch = step * config.batch_size / examples
    self.writer.write(step, epoch, split, values, timing)
    return epoch

  def _save(
    self, step: int, *, is_over: bool = False, is_pending: bool = False
  ) -> None:
    self._check_finite()
    rows = () if is_pending else self.writer.rows(step)
    progress = Progress(self.plateau, rows, is_over, is_pending)
    with self.stepper.clock.paused():
      state = self.stepper.canonical_state()
      extra = progress.extra(self.stepper.program.process)
      self.checkpointer.save(step, state, extra)

  def _check_finite(self) -> None:
    bad_step = self.stepper.first_bad_step()
    if bad_step >= 0:
      raise errors.UserError(
        f'loss or gradients of step {bad_step} were not finite (last logged '
        f'loss: {self.writer.last_loss}; newest checkpoint: step '
        f'{self.checkpointer.latest_step()}); start a new workdir with a lower '
        'optimizer.learning_rate.'
      )


def _progress_bar(first_step: int, last_step: int) -> tqdm.tqdm:
  return tqdm.tqdm(
    desc='compile',
    total=last_step,
    initial=first_step,
    unit='step',
    disable=not hosts.is_first(),
  )


def _check_total(workdir: pathlib.Path, newest_step: int, total: int) -> None:
  if newest_step > total:
    raise errors.UserError(
      f'{workdir} is at step {newest_step} already but num_epochs or '
      f'train_steps say {total}; give more, or a new workdir.'
    )


def _introduction(job: _Job, state: TrainState) -> str:
  num_params = sum(x.size for x in jax.tree.leaves(state.params))
  num_examples = pipeline.num_train_examples(job.prepared, job.config.data)
  return (
    f'{num_params:,} parameters in {job.config.model.towers} tower(s) on '
    f'{job.plan.num_devices} device(s); {num_examples:,} training images of '
    f'{job.prepared.directory}; step {int(state.step)} of {job.steps.total}. '
    'Compiling may take a minute.'
  )


def _restore_or_create(
  job: _Job,
  process: preprocessing.Preprocessing,
  checkpointer: checkpoint.Checkpointer,
) -> tuple[TrainState, Progress]:
  """The newest checkpoint's canonical state, or a new one."""
  checkpointer.recover()
  if hosts.agree(checkpointer.latest_step() is not None):
    like = abstract_train_state(job.config)
    state, extra = checkpointer.restore_newest(like)
    process.check_digest(extra['preprocessing'])
    return state, Progress.from_extra(extra)
  state, progress = create_train_state(job.config), Progress(optim.Plateau())
  if job.origin:
    fine_tune.check_preprocessing(job.config, job.origin, process)
    params = fine_tune.first_params(
      job.config, state.params, job.origin, job.prepared.class_names
    )
    state = state.replace(params=params)
    # The origin may train on: from here, this run is its own.
    checkpointer.save(0, state, progress.extra(process))
    checkpointer.wait()
  return state, progress


def _reason(plateau: optim.Plateau) -> str:
  if plateau.is_over:
    return 'The validation error has stopped improving'
  return 'The training error is below stop_at_train_error'


def _check_loss(loss: float, step: int) -> None:
  if not math.isfinite(loss):
    raise errors.UserError(
      f'validation loss after step {step} is not finite but {loss}; start a '
      'new workdir with a lower optimizer.learning_rate.'
    )


def _warn_at_chance(
  loss: float, epoch: float, config: ml_collections.ConfigDict
) -> None:
  chance = math.log(config.model.num_classes)
  if abs(loss - chance) < _AT_CHANCE * chance:
    hosts.say(
      f'Warning: the training loss is {loss:.4f} after {epoch:.3g} epochs, as '
      f'good as guessing (ln {config.model.num_classes} = {chance:.4f}). If it '
      'stays there, begin again with --config.model.init=he and '
      "--config.data.scale=64, with each layer's init_bias=0, or with a tenth "
      f'or ten times optimizer.learning_rate={config.optimizer.learning_rate}.'
    )


def _summary(values: dict[str, float], timing: dict[str, float]) -> str:
  return (
    f'loss {values["loss"]:.4f}, top-1 error {values["top1_error"]:.4f}, '
    f'top-5 error {values["top5_error"]:.4f}, '
    f'{timing["examples_per_second"]:.0f} images/s'
  )
