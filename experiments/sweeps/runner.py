"""Runs of a sweep as processes of this machine.

Each run is a process of its own (`main.py`), so a run that fails or is killed
stops no other. When the same runs are executed again, those that are finished
are skipped, and the others go on from their checkpoints.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import queue
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from alexnet_jax import config as config_lib
from alexnet_jax import errors, locks
from alexnet_jax.workdir import metrics_file

Overrides = Mapping[str, object]
Result = dict[str, object]

ROOT = pathlib.Path(__file__).parents[2]
# File in the workdir of a finished run: the flags that it had, one a line.
FINISHED = 'finished.txt'
LOG = 'log.txt'


@dataclasses.dataclass(frozen=True)
class Run:
  """One process of a sweep.

  Attributes:
    variant: Name of the variant.
    seed: Seed of the run.
    workdir: Absolute path of the run's workdir.
    flags: Flags of main.py.
  """

  variant: str
  seed: int
  workdir: pathlib.Path
  flags: tuple[str, ...]


def create_run(
  variant: str,
  seed: int,
  workdir: pathlib.Path,
  config: str,
  overrides: Overrides,
) -> Run:
  """Returns the run of a config with some fields changed.

  Args:
    variant: Name of the variant.
    seed: Seed of the run.
    workdir: Absolute path of the run's workdir.
    config: Value of main.py's --config, with its data.
    overrides: Fields of the config to change, by name.
  """
  fields = {**overrides, 'seed': seed}
  changed = [f'--config.{_path(name)}={v}' for name, v in fields.items()]
  flags = (f'--config={config}', f'--workdir={workdir}', *changed)
  return Run(variant, seed, workdir, flags)


def _path(name: str) -> str:
  """Returns the name of a field as a flag has it: a["b/c"] for a.b/c."""
  parent, _, last = name.rpartition('.')
  return f'{parent}["{last}"]' if '/' in last else name


def execute_all(
  runs: Sequence[Run], devices: Sequence[Mapping[str, str]]
) -> Iterator[Result]:
  """Executes runs, as many at a time as there are devices.

  Args:
    runs: Runs in the order in which they start.
    devices: For each device, the environment variables that make a process
      use this device alone.

  Yields:
    Results of `execute`, in the order in which runs end.
  """
  free = queue.SimpleQueue()
  for device in devices:
    free.put(device)

  def execute_on_free_device(run: Run) -> Result:
    device = free.get()
    try:
      return execute(run, device)
    finally:
      free.put(device)

  with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
    futures = [pool.submit(execute_on_free_device, run) for run in runs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    finally:
      # After Ctrl-C no other run starts.
      pool.shutdown(wait=False, cancel_futures=True)


def execute(run: Run, environment: Mapping[str, str]) -> Result:
  """Trains a run, unless it has ended. A failure is a result, not an error.

  Args:
    run: Run to train.
    environment: Environment variables to add to those of this process.
  """
  run.workdir.mkdir(parents=True, exist_ok=True)
  with (run.workdir / 'lock').open('w') as lock:
    # The training process inherits the lock. If it outlives a killed sweep,
    # the next sweep waits here until it ends.
    locks.take(lock, wait=True)
    if has_ended(run):
      return outcome(run, _conflict(run))
    reason = _train(run, environment, lock.fileno())
    if not reason:
      (run.workdir / FINISHED).write_text('\n'.join(run.flags) + '\n')
    return outcome(run, reason)


def outcome(run: Run, reason: str = '') -> Result:
  """Returns a result: 'variant', 'seed', 'status' and, if it failed, 'reason'.

  Args:
    run: Run that was executed.
    reason: Why it failed, or ''.
  """
  result = {'variant': run.variant, 'seed': run.seed, 'status': 'finished'}
  return result | {'status': 'failed', 'reason': reason} if reason else result


def has_ended(run: Run) -> bool:
  """Returns whether there is nothing left to train.

  The run is finished, or its workdir has a finished run that differs.
  """
  return _finished_flags(run) == run.flags or bool(_conflict(run))


def _finished_flags(run: Run) -> tuple[str, ...]:
  path = run.workdir / FINISHED
  return tuple(path.read_text().splitlines()) if path.exists() else ()


def _conflict(run: Run) -> str:
  """Returns why a finished run cannot stand for this one; '' if it can.

  main.py itself sees to new places of files, and to a new length.
  """
  finished = _finished_flags(run)
  changed = [
    flag
    for flag in sorted(set(finished) ^ set(run.flags))
    if not flag.startswith('--workdir=')
    and not config_lib.changes_nothing_done(
      flag.removeprefix('--config.').partition('=')[0]
    )
  ]
  if not finished or not changed:
    return ''
  return (
    f'finished with other flags ({", ".join(changed)}); give a new --workdir'
  )


def _train(run: Run, environment: Mapping[str, str], lock: int) -> str:
  """Runs main.py and returns why it failed, or ''.

  Args:
    run: Run to train. The output goes to its log.txt.
    environment: Environment variables to add.
    lock: Descriptor of a file that the process keeps open.
  """
  with (run.workdir / LOG).open('a') as log:
    done = subprocess.run(
      [sys.executable, 'main.py', *run.flags],
      cwd=ROOT,
      env=os.environ | environment,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=(lock,),
      check=False,
    )
  if done.returncode == 0:
    return ''
  how = f'exit code {done.returncode}'
  if done.returncode < 0:
    how = f'killed by {signal.Signals(-done.returncode).name}'
  return f'{how}: {last_output(run)}'


def last_output(run: Run) -> str:
  """Returns the last line that the run has printed."""
  path = run.workdir / LOG
  text = path.read_text(errors='replace') if path.exists() else ''
  # Progress bars end their lines with a carriage return.
  *_, last = text.replace('\r', '\n').splitlines() or ['no output']
  return last


def measure(run: Run, result: Result) -> Result:
  """Adds the errors of a finished run to its result.

  Args:
    run: Run that was executed.
    result: Result of `execute`.

  Returns:
    The result with 'value', the top-1 error of the last validation,
    'training_error', 'steps' and 'epochs'. A run without a validation has
    failed.
  """
  if result['status'] != 'finished':
    return result
  try:
    rows = metrics_file.read(run.workdir)
    validation = [row for row in rows if row['split'] == 'validation']
    if not validation:
      return outcome(run, 'it has ended without a validation')
    training = [row for row in rows if row['split'] == 'train']
    metrics_file.check_numbers(run.workdir, rows, ('epoch', 'top1_error'))
    metrics_file.check_numbers(run.workdir, training, ('examples',))
  except errors.UserError as error:
    return outcome(run, str(error))
  return result | {
    'value': validation[-1]['top1_error'],
    'training_error': _training_error(rows),
    'steps': rows[-1]['step'],
    'epochs': rows[-1]['epoch'],
  }


def _training_error(rows: Sequence[metrics_file.Row]) -> float | None:
  """Returns the mean top-1 error over the last epoch, if it was logged."""
  end = rows[-1]['epoch']
  last = [r for r in rows if r['split'] == 'train' and r['epoch'] > end - 1]
  if not last:
    return None
  examples = [row['examples'] for row in last]
  return statistics.fmean([row['top1_error'] for row in last], examples)
