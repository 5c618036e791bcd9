"""Experiments as data, and what runs them.

An experiment is a base config, named variants of it as overrides, seeds and the
paper's claim; what is measured is the last validation's top-1 error. Each run
is a process of its own (`main.py`), so that one which fails, or is killed,
takes nothing with it; the same sweep again skips what is finished and goes on
with the rest.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import signal
import statistics
import subprocess
import sys
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)

from alexnet_jax import config_fields, errors, locks
from alexnet_jax import rows as rows_lib

Overrides = Mapping[str, object]
Result = dict[str, object]
_ROOT = pathlib.Path(__file__).parents[2]
_FINISHED = 'finished.json'  # has the flags of the run that did


@dataclasses.dataclass(frozen=True)
class Variant:
  """One row of an experiment's table.

  Attributes:
    overrides: fields of the base config, by name.
    schedule: further ones, of the run that this one mirrors: its length, its
      drops. Other data than the claim's have a schedule of their own.
    small: further ones on other data than the claim's.
    published: the top-1 error as printed for that run.
    source: of that number, or of the run.
  """

  overrides: Overrides = dataclasses.field(default_factory=dict)
  schedule: Overrides = dataclasses.field(default_factory=dict)
  small: Overrides = dataclasses.field(default_factory=dict)
  published: float | None = None
  source: str = ''


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A claim of the paper, and the runs that put it to the test.

  Attributes:
    name: of its results.
    claim: what the paper says, with its section.
    config: of all variants, a file of configs/.
    variants: by name; the first is what the others are compared with.
    overrides: fields of all variants.
    data: the data that the claim is about.
    small: overrides for other data, by their name: narrower, shorter.
    pictures: overrides for folders of pictures (`folder=PATH`): as wide as the
      claim's networks, shorter; None where there is no such recipe.
    seeds: of each variant.
  """

  name: str
  claim: str
  config: str
  variants: Mapping[str, Variant]
  overrides: Overrides = dataclasses.field(default_factory=dict)
  data: str = 'imagenet2012'
  small: Mapping[str, Overrides] = dataclasses.field(default_factory=dict)
  pictures: Overrides | None = None
  seeds: Sequence[int] = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Run:
  """One process of a sweep.

  Attributes:
    variant: its name.
    seed: of the run.
    workdir: absolute path.
    flags: of main.py.
  """

  variant: str
  seed: int
  workdir: pathlib.Path
  flags: tuple[str, ...]


def plan(
  experiment: Experiment,
  workdir: pathlib.Path,
  *,
  data: str = '',
  seeds: Sequence[int] = (),
  overrides: Overrides | None = None,
) -> list[Run]:
  """All runs of an experiment: the first seed of every variant, then the next.

  Args:
    experiment: which.
    workdir: absolute path; each run gets VARIANT/seed-N in it.
    data: a name as after the colon of --config; by default the experiment's.
    seeds: by default the experiment's.
    overrides: further fields of every run, over `schedule` and `small`.

  Raises:
    UserError: where the experiment has no recipe for the data, or `overrides`
      would undo what a variant is.
  """
  data = data or experiment.data
  recipe = _recipe(experiment, data)
  variants = experiment.variants.values()
  check_free(overrides or {}, {'seed'}.union(*(v.overrides for v in variants)))

  def run(name: str, seed: int) -> Run:
    fields = {**experiment.overrides, **recipe(experiment.variants[name])}
    fields = {**fields, **(overrides or {}), 'seed': seed}
    directory = workdir / name / f'seed-{seed}'
    config = f'{experiment.config}:{data}'
    return Run(name, seed, directory, main_flags(config, directory, fields))

  return [
    run(name, seed)
    for seed in seeds or experiment.seeds
    for name in experiment.variants
  ]


def _recipe(
  experiment: Experiment, data: str
) -> Callable[[Variant], Overrides]:
  """Returns a function that gives a variant's fields on some data."""
  if data == experiment.data:
    return lambda variant: {**variant.schedule, **variant.overrides}
  if data.startswith('folder=') and experiment.pictures is not None:
    return lambda variant: {**experiment.pictures, **variant.overrides}
  if data in experiment.small:
    return lambda variant: {
      **experiment.small[data],
      **variant.overrides,
      **variant.small,
    }
  names = [experiment.data, *experiment.small]
  names += [] if experiment.pictures is None else ['folder=PATH']
  raise errors.UserError(
    f'data={data}: {experiment.name} has recipes for {", ".join(names)}; give '
    'one of these.'
  )


def check_free(overrides: Overrides, taken: Collection[str]) -> None:
  """Raises UserError where a field is one of those `taken` by an experiment."""
  for name in overrides:
    if name in taken:
      raise errors.UserError(
        f'--set={name}={overrides[name]} would undo what the experiment sets '
        'itself; leave it out (--seeds, --variants choose among its runs).'
      )


def main_flags(
  config: str, workdir: pathlib.Path, fields: Overrides
) -> tuple[str, ...]:
  """The flags that make main.py train so.

  Args:
    config: as --config.
    workdir: as --workdir.
    fields: of the config, by name.
  """
  overrides = [f'--config.{field}={value}' for field, value in fields.items()]
  return (f'--config={config}', f'--workdir={workdir}', *overrides)


def execute(run: Run, environment: Mapping[str, str]) -> Result:
  """Trains, unless that was done; raises nothing for a run that fails.

  Args:
    run: which.
    environment: variables on top of this process's.

  Returns:
    See `outcome`.
  """
  run.workdir.mkdir(parents=True, exist_ok=True)
  with _locked(run.workdir) as lock:
    if is_finished(run):
      return outcome(run)
    reason = _difference(run) or _train(run, environment, lock)
    if not reason:
      (run.workdir / _FINISHED).write_text(json.dumps(run.flags) + '\n')
  return outcome(run, reason)


def outcome(run: Run, reason: str = '') -> Result:
  """What became of a run.

  Args:
    run: which.
    reason: why it failed, if it did.

  Returns:
    {'variant', 'seed', 'status'}; status is 'finished', or 'failed' with the
    'reason'.
  """
  result = {'variant': run.variant, 'seed': run.seed, 'status': 'finished'}
  return result | {'status': 'failed', 'reason': reason} if reason else result


def is_finished(run: Run) -> bool:
  """Whether it was trained to its end, with the same flags."""
  return _finished_flags(run) == list(run.flags)


def _finished_flags(run: Run) -> list[str] | None:
  """Those with which it was trained to its end, if it was."""
  try:
    return json.loads((run.workdir / _FINISHED).read_text())
  except (OSError, ValueError):
    return None


def _difference(run: Run) -> str:
  """Why a run that has ended is not what is asked for; '' where it may be."""
  finished = _finished_flags(run)
  changed = finished and _of_effect(finished) ^ _of_effect(run.flags)
  if not changed:
    return ''
  told = ', '.join(sorted(changed))
  return f'finished with other flags ({told}); give a new --workdir'


def _of_effect(flags: Iterable[str]) -> set[str]:
  """Without what main.py sees to itself: places, and how long to train."""

  def has_effect(flag: str) -> bool:
    name, _, _ = flag.removeprefix('--config.').partition('=')
    return name != '--workdir' and not config_fields.changes_nothing_done(name)

  return set(filter(has_effect, flags))


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[int]:
  """Waits until no other process works on a run; the lock's file number.

  A training process inherits the lock, so that one which has outlived its
  sweep is waited for.
  """
  with (workdir / 'lock').open('w') as file:
    locks.take(file, wait=True)
    yield file.fileno()


def _train(run: Run, environment: Mapping[str, str], lock: int) -> str:
  """Runs main.py, its output in log.txt; why it failed, or nothing."""
  path = run.workdir / 'log.txt'
  with path.open('a') as log:
    done = subprocess.run(
      [sys.executable, 'main.py', *run.flags],
      cwd=_ROOT,
      env=os.environ | environment,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=(lock,),
      check=False,
    )
  if done.returncode == 0:
    return ''
  lines = path.read_text(errors='replace').replace('\r', '\n').splitlines()
  last = lines[-1] if lines else 'no output'
  if done.returncode < 0:
    return f'killed by {signal.Signals(-done.returncode).name}: {last}'
  return f'exit code {done.returncode}: {last}'


def execute_all(
  runs: Sequence[Run], devices: Sequence[Mapping[str, str]]
) -> Iterator[Result]:
  """Executes runs, as many at a time as there are devices.

  Args:
    runs: in the order in which they start.
    devices: for each, the variables that make a process use it alone.

  Yields:
    What `execute` returns, as runs end.
  """
  free = queue.SimpleQueue()
  for device in devices:
    free.put(device)

  def work(run: Run) -> Result:
    device = free.get()
    try:
      return execute(run, device)
    finally:
      free.put(device)

  with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
    futures = [pool.submit(work, run) for run in runs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    finally:
      # Where the caller stops early, as at Ctrl-C, no other run starts.
      pool.shutdown(wait=False, cancel_futures=True)


def measure(run: Run, result: Result) -> Result:
  """Adds what a finished run gave.

  Args:
    run: which.
    result: of `execute`.

  Returns:
    With 'value', the last validation's top-1 error, 'training_error', and how
    many 'steps' and 'epochs' it took; a run without a value has failed.
  """
  if result['status'] != 'finished':
    return result
  try:
    rows = rows_lib.read(run.workdir)
  except errors.UserError as error:
    return outcome(run, str(error))
  found = [row for row in rows if row['split'] == 'validation']
  if not found:
    return outcome(run, 'it has ended without a validation')
  return result | {
    'value': found[-1]['top1_error'],
    'training_error': _training_error(rows),
    'steps': rows[-1]['step'],
    'epochs': rows[-1]['epoch'],
  }


def _training_error(rows: Sequence[rows_lib.Row]) -> float | None:
  """Top-1, over the last epoch as it was trained; None where none is logged."""
  end = rows[-1]['epoch']
  last = [r for r in rows if r['split'] == 'train' and r['epoch'] > end - 1]
  if not last:
    return None
  examples = [row['examples'] for row in last]
  return statistics.fmean([row['top1_error'] for row in last], examples)
