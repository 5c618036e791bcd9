"""Training: the loop around the step, from a workdir's newest checkpoint on."""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np

from alexnet_jax import config as config_lib
from alexnet_jax import (
  errors,
  evaluate,
  fine_tune,
  metrics,
  multihost,
  optim,
  parallel,
  paths,
  train_step,
  trained,
  validate,
)
from alexnet_jax.data import pipeline, prepare, preprocessing, records
from alexnet_jax.meter import Meter
from alexnet_jax.run import Run, build_run
from alexnet_jax.signals import Signals
from alexnet_jax.train_step import TrainState
from alexnet_jax.workdir import (
  checkpoints,
  environment,
  files,
  metrics_file,
)

# A loss within this share of ln(classes) is the loss of guessing.
_AT_CHANCE = 0.005
# Batches of this size and more are published with a warm-up alone (the paper
# of LARS, arXiv 1708.03888, and NVCaffe's solver files).
_LARGE_BATCH = 16384
# Processes agree on the time at every so many steps.
_CLOCK_STEPS = 20
# Longest preparation of a set that is small enough for a run to prepare it.
_PREPARE_MINUTES = 120
# NFS may show a new directory to other hosts after so long.
_VISIBLE_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Progress:
  """The part of a checkpoint beside the state.

  Attributes:
    plateau: State of the 'plateau' schedule.
    rows: Rows that metrics.jsonl has for the checkpoint's step.
    num_rows: Number of its rows up to that step.
    is_over: Whether the run has ended before its last step.
    is_pending: Whether a signal stopped the run before the evaluation, the log
      and the checkpoint that are due after the step.
    best_step: Step of the lowest validation error (the newest of equal ones),
      None before the first evaluation and without `keep_best`.
    best_error: That error, 1 at the start.
  """

  plateau: optim.Plateau = optim.Plateau()
  rows: Sequence[dict] = ()
  num_rows: int = 0
  is_over: bool = False
  is_pending: bool = False
  best_step: int | None = None
  best_error: float = 1.0

  def to_json(self, inputs: preprocessing.Preprocessing) -> dict:
    """Returns the JSON that is saved next to the state."""
    return {'preprocessing': inputs.digest(), **dataclasses.asdict(self)}

  @classmethod
  def from_json(cls, extra: dict) -> 'Progress':
    """Rebuilds the progress from a checkpoint's JSON.

    Fields added after the checkpoint was written get their defaults.
    """
    plateau = optim.Plateau(**extra['plateau'])
    names = {field.name for field in dataclasses.fields(cls)} - {'plateau'}
    return cls(plateau, **{k: extra[k] for k in names if k in extra})


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: pathlib.Path | str
) -> TrainState:
  """Trains a run, or goes on from the workdir's newest checkpoint.

  Args:
    config: Config of the run, see `config.base`.
    workdir: Directory of the run.

  Returns:
    The final canonical state.

  Raises:
    UserError: If config, data, devices and workdir do not fit each other, or
      the numbers stop being finite.
    Interrupted: After a signal, when the step is saved (see `signals`).
  """
  workdir = paths.for_checkpoints('workdir', workdir)
  run, data, origin = _prepare_run(config, workdir)
  multihost.check_same(_start_values(config, data))
  plan, total = run.plan, run.steps.total
  with (
    files.lock(workdir),
    Signals() as signals,
    checkpoints.Checkpointer(workdir, config.keep_checkpoints) as saved,
  ):
    inputs = files.start(workdir, config, data, run.preprocessing)
    run = dataclasses.replace(run, preprocessing=inputs)
    state, progress = _restore_or_initialize(run, data, origin, saved)
    step = first_step = int(state.step)
    if progress.is_over or (step >= total and not progress.is_pending):
      multihost.log(f'{workdir} is complete at step {step}.')
      return state
    multihost.log(data.description())
    multihost.log(_introduction(run, data, state))
    state, plateau = run.put_state(state), progress.plateau
    kept = ('best_step', 'best_error') if config.keep_best else ()
    best = {name: getattr(progress, name) for name in kept}
    rate_scale = run.put_everywhere(np.float32(plateau.scale))
    num_traced = config.profile_steps if multihost.is_primary() else 0
    with (
      metrics_file.create_writer(
        workdir, step, progress.rows, progress.num_rows
      ) as writer,
      Meter(workdir, config.batch_size, step, total, num_traced) as meter,
    ):
      saved_at = time.monotonic()

      def save(**flags: bool) -> None:
        nonlocal saved_at
        _check_finite(run, state, writer, saved)
        rows, num_rows = writer.rows(step), writer.num_rows
        if flags.get('is_pending'):  # they will be written again
          rows, num_rows = (), num_rows - len(rows)
        now = Progress(plateau, rows, num_rows, **best, **flags)
        with meter.paused():
          extra = now.to_json(run.preprocessing)
          saved.save(step, run.get_state(state), extra)
        saved_at = time.monotonic()

      try:
        for step, batch in _steps(run, data, first_step, progress, meter):
          if batch is not None:
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
              batch = plan.put_batch(batch)
              state, sums = run.train_step(state, batch, rate_scale)
            meter.count_and_wait(step, sums)
          signals.check_step(step)
          due = run.steps.due(step)
          if step % _CLOCK_STEPS == 0 and _is_overdue(config, saved_at):
            due.add('checkpoint')
          epoch = step * config.batch_size / run.steps.epoch_examples
          used_scale = plateau.scale
          if due:
            _check_finite(run, state, writer, saved)
          # Evaluate before logging: an end that the plateau brings must force
          # the last log, and a signal during evaluation must find the metric
          # sums not yet reset.
          if 'eval' in due:
            with meter.paused():
              totals, timing = evaluate.evaluate(
                run, state.variables, data, 'validation', signals.check
              )
            values = metrics.means(totals)
            _check_loss(values['loss'], step)
            writer.write(step, epoch, 'validation', values, timing)
            summary = _summary(values, timing)
            multihost.log(f'epoch {epoch:.4g}, validation: {summary}')
            if config.schedule.name == 'plateau':
              plateau = _next_plateau(plateau, values['top1_error'], run, data)
              rate_scale = run.put_everywhere(np.float32(plateau.scale))
            error = values['top1_error']
            if config.keep_best and error <= best['best_error']:
              best = {'best_step': step, 'best_error': error}
              due.add('checkpoint')
          is_over = plateau.is_over
          if 'log' in due or is_over:
            values = metrics.means(plan.get(state.metric_sums))
            values['learning_rate'] = run.learning_rate(step, used_scale)
            timing = meter.read()
            writer.write(step, epoch, 'train', values, timing)
            meter.describe(_summary(values, timing))
            _warn_at_chance(run, step, values['loss'])
            zeros = run.put_everywhere(metrics.zeros())
            state = state.replace(metric_sums=zeros)
            meter.restart()
            is_over |= values['top1_error'] < config.stop_at_train_error
          if 'checkpoint' in due or is_over:
            save(is_over=is_over)
          if is_over:
            multihost.log(f'{_reason(plateau)}: done at step {step}.')
            break
      except errors.Interrupted as interrupted:
        if step != saved.latest_step():
          save(is_pending=True)
        raise errors.Interrupted(
          interrupted.number,
          f'stopped after step {step}, which is saved; the same command goes '
          'on.',
        ) from None
      return run.get_state(state)


def _start_values(
  config: ml_collections.ConfigDict, data: records.PreparedSet
) -> dict[str, object]:
  """Returns what all processes of a run must have alike, by name."""
  fields = files.flatten_config(json.loads(config.to_json()))
  return {
    **{k: v for k, v in fields.items() if k not in config_lib.PLACES},
    'digest of the data': records.sha256(data.directory / 'info.json'),
    'digest of the code': environment.code_digest(),
    'packages': environment.packages(),
  }


def _open_data(config: ml_collections.ConfigDict) -> records.PreparedSet:
  """Opens the prepared set; of several processes, the primary one is first.

  The others wait until they see what it has prepared. If they have disks of
  their own, they prepare the set as well.
  """
  if multihost.is_primary():
    data = prepare.open_or_prepare(config.data)
  multihost.sync('preparation of the data', _PREPARE_MINUTES)
  if multihost.is_primary():
    return data
  end = time.monotonic() + _VISIBLE_SECONDS
  while time.monotonic() < end:
    if records.open_prepared(config.data.dir, config.data.name):
      break
    time.sleep(1)
  return prepare.open_or_prepare(config.data)


def _is_overdue(config: ml_collections.ConfigDict, saved_at: float) -> bool:
  """Returns whether it is time to save, by the primary process's clock."""
  minutes = config.checkpoint_every_minutes
  passed = (time.monotonic() - saved_at) / 60
  return minutes > 0 and multihost.broadcast(passed) > minutes


def _prepare_run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> tuple[Run, records.PreparedSet, trained.TrainedRun | None]:
  """Makes every check that is possible before anything is written.

  Returns:
    The run, its data and, for a new run, the one that it starts from.
  """
  validate.check_config(config)
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  parallel.check_batch_size(plan, config.batch_size, config.accumulate_steps)
  _warn_without_warm_up(config)
  newest_step = multihost.broadcast(files.newest_step(workdir))
  expected = train_step.abstract_train_state(config).params
  origin = None
  if config.init_from and newest_step is None:
    origin = fine_tune.read_origin(config, expected)
  data = _open_data(config)
  if newest_step is None:
    prepare.check_origin(data, config.data.manual_dir)
  validate.check_num_classes(config, data)
  validate.check_channels(config, data)
  if origin:
    fine_tune.check_head(config, expected, origin, data.class_names)
  inputs = (
    files.read_preprocessing(workdir)
    or (origin and origin.preprocessing)
    or preprocessing.from_statistics(data, config.data)
  )
  examples = pipeline.num_train_examples(data, config.data)
  run = build_run(config, inputs, examples)
  if (newest_step or 0) > run.steps.total:
    raise errors.UserError(
      f'{workdir} is at step {newest_step} already but num_epochs or '
      f'train_steps say {run.steps.total}; give more, or a new workdir.'
    )
  return run, data, origin


def _restore_or_initialize(
  run: Run,
  data: records.PreparedSet,
  origin: trained.TrainedRun | None,
  saved: checkpoints.Checkpointer,
) -> tuple[TrainState, Progress]:
  """Returns the newest checkpoint's canonical state, or a new one."""
  saved.recover()
  if multihost.broadcast(saved.latest_step() is not None):
    expected = train_step.abstract_train_state(run.config)
    state, extra = saved.restore_newest(expected)
    run.preprocessing.check_digest(extra['preprocessing'])
    return state, Progress.from_json(extra)
  state, progress = train_step.create_train_state(run.config), Progress()
  if origin:
    fine_tune.check_preprocessing(run.config, origin, run.preprocessing)
    variables = fine_tune.first_variables(
      run.config, state.variables, origin, data.class_names
    )
    state = state.replace(**variables)
    # The origin may train on: from here, this run is its own.
    saved.save(0, state, progress.to_json(run.preprocessing))
    saved.wait()
  return state, progress


def _steps(
  run: Run,
  data: records.PreparedSet,
  first_step: int,
  progress: Progress,
  meter: Meter,
) -> Iterator[tuple[int, pipeline.Batch | None]]:
  """Yields the number and the batch of each step.

  The first batch is None if what was due after the restored step is pending.
  """
  if progress.is_pending:
    yield first_step, None
  config = run.config
  batches = pipeline.train_batches(
    data,
    config.data,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=first_step,
    end_step=run.steps.total,
    share=run.plan.share(config.batch_size),
  )
  yield from enumerate(meter.timed(batches), first_step + 1)


def _introduction(
  run: Run, data: records.PreparedSet, state: TrainState
) -> str:
  num_params = sum(x.size for x in jax.tree.leaves(state.params))
  num_examples = pipeline.num_train_examples(data, run.config.data)
  return (
    f'{num_params:,} parameters in {run.config.model.towers} tower(s) on '
    f'{run.plan.num_devices} device(s); {num_examples:,} training images of '
    f'{data.directory}; step {int(state.step)} of {run.steps.total}. '
    'Compiling may take a minute.'
  )


def _check_finite(
  run: Run,
  state: TrainState,
  writer: metrics_file.MetricsWriter | metrics_file.NoWriter,
  saved: checkpoints.Checkpointer,
) -> None:
  bad_step = int(run.plan.get(state.first_nonfinite_step))
  if bad_step >= 0:
    raise errors.UserError(
      f'loss or gradients of step {bad_step} were not finite (last logged '
      f'loss: {writer.last_loss}; newest checkpoint: step '
      f'{saved.latest_step()}); start a new workdir with a lower '
      'optimizer.learning_rate.'
    )


def _check_loss(loss: float, step: int) -> None:
  if not math.isfinite(loss):
    raise errors.UserError(
      f'validation loss after step {step} is not finite but {loss}; start a '
      'new workdir with a lower optimizer.learning_rate.'
    )


def _next_plateau(
  plateau: optim.Plateau, error: float, run: Run, data: records.PreparedSet
) -> optim.Plateau:
  """Returns the plateau's state after an evaluation."""
  schedule = run.config.schedule
  labels = data.open_split('validation').labels
  chance = 1 - np.bincount(labels).max() / len(labels)
  plateau = plateau.after(error, schedule.min_delta, schedule.patience, chance)
  if plateau.is_at_chance(chance):
    multihost.log(
      f'The network has not learnt yet: chance is an error of {chance:.4f}. '
      'The plateau rule waits until it has.'
    )
  return plateau


def _warn_without_warm_up(config: ml_collections.ConfigDict) -> None:
  """Warns of a large batch at its whole rate from the first step on."""
  schedule = config.schedule
  if config.batch_size >= _LARGE_BATCH and not schedule.warmup_epochs:
    other = ' and another schedule.name' * (schedule.name == 'plateau')
    multihost.log(
      f'Warning: batch_size={config.batch_size} but schedule.warmup_epochs=0. '
      'Published runs of such batches climb to their rate in 2 to 10 epochs; '
      f'in a new workdir, give --config.schedule.warmup_epochs=5{other}.'
    )


def _warn_at_chance(run: Run, step: int, loss: float) -> None:
  """Warns once, at the first log after an epoch, if the loss is of guessing."""
  config, every = run.config, run.steps.every['log']
  epoch = run.steps.from_epochs(1)  # in steps
  last_log = (step - 1) // every * every if every else 0
  is_first = last_log < epoch <= step
  chance = math.log(config.model.num_classes)
  if is_first and abs(loss - chance) < _AT_CHANCE * chance:
    multihost.log(
      f'Warning: the training loss is {loss:.4f} after step {step}, as good as '
      f'guessing (ln {config.model.num_classes} = {chance:.4f}). If it stays '
      'there, begin again with --config.model.init=he and '
      "--config.data.scale=64, with each layer's init_bias=0, or with a tenth "
      f'or ten times optimizer.learning_rate={config.optimizer.learning_rate}.'
    )


def _reason(plateau: optim.Plateau) -> str:
  if plateau.is_over:
    return 'The validation error has stopped improving'
  return 'The training error is below stop_at_train_error'


def _summary(values: dict[str, float], timing: dict[str, float]) -> str:
  return (
    f'loss {values["loss"]:.4f}, top-1 error {values["top1_error"]:.4f}, '
    f'top-5 error {values["top5_error"]:.4f}, '
    f'{timing["examples_per_second"]:.0f} images/s'
  )
