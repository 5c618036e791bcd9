"""The command line of a sweep.

Each run is a process of `main.py`. Every visible GPU trains one run at a time;
without GPUs, one run trains at a time. The same command again skips the runs
that are finished and goes on with the rest. It writes to --workdir: results.md,
results.jsonl (one run a line), plot.png, environment.json, and VARIANT/seed-N/
for each run, with its output in log.txt.

    --gpus=0,0,0

trains three runs at a time on the first GPU, which small networks leave idle.
Set XLA_PYTHON_CLIENT_PREALLOCATE=false, or the first run takes most of the
memory.

    --sbatch='--time=24:00:00 --gpus-per-node=1 --cpus-per-task=8'

trains nothing. It writes an array of SLURM tasks, one for each run that is not
finished, and prints the command that submits it. After these tasks, the same
command makes the table from the finished runs, and a script for the missing
ones.

    --data=cifar10 --results=experiments/results/ablation_network/results.jsonl

trains nothing. It rewrites results.md and plot.png beside that file, from its
rows.

    --seeds=3

trains with seeds 0, 1 and 2; --seeds=4,7 with these two.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from absl import flags

from alexnet_jax import command_line, errors, paths
from alexnet_jax.tools import figures
from alexnet_jax.workdir import metrics_file
from experiments.benchmarks import machine
from experiments.sweeps import runner, sbatch, table
from experiments.sweeps.experiment import Experiment, plan

_FLAGS = flags.FLAGS
_Parsed = TypeVar('_Parsed')


def define_flags() -> None:
  """Defines the flags of every program that trains several runs."""
  flags.DEFINE_string('workdir', None, 'Directory of all runs.')
  flags.DEFINE_list(
    'seeds',
    [],
    'How many seeds each variant has, as 3, or which, as 4,7; one as 4,',
  )
  flags.DEFINE_multi_string(
    'set', [], 'FIELD=VALUE of every config, as --set=num_epochs=5.'
  )
  flags.DEFINE_list(
    'gpus',
    [],
    'Numbers of the GPUs that train, one run at a time on each; one that is '
    'given twice trains two. By default all that are visible.',
  )
  flags.DEFINE_string(
    'results',
    None,
    'A results.jsonl. Rewrites the table and the plot beside it from its rows; '
    'trains nothing.',
  )


def define_sweep_flags() -> None:
  """Defines the flags of `sweep`."""
  define_flags()
  flags.DEFINE_string(
    'sbatch', None, 'Options of sbatch. Writes a script; trains nothing.'
  )


def define_data_flag() -> None:
  """Defines --data, for experiments with a recipe for other data."""
  flags.DEFINE_string(
    'data', '', "Data other than the claim's: cifar10, shapes or folder=PATH."
  )


def run(experiment: Experiment) -> None:
  """Runs an experiment as the command line says."""
  command_line.run(functools.partial(_main, experiment), _define_flags)


def _define_flags() -> None:
  define_sweep_flags()
  define_data_flag()
  flags.DEFINE_list('variants', [], 'Variants to train; by default all.')


def _main(experiment: Experiment, _) -> None:
  names = chosen('variants', experiment.variants)
  variants = {name: experiment.variants[name] for name in names}
  sweep(dataclasses.replace(experiment, variants=variants), _FLAGS.data)


def sweep(experiment: Experiment, data: str = '') -> None:
  """Trains all variants, or does what --results or --sbatch says instead.

  Args:
    experiment: Experiment with the variants to train.
    data: Name of the data to train on; '' for the experiment's own.
  """
  if _FLAGS.results:
    rewrite(*create_table(experiment, read_results(as_result), data))
    return
  runs = plan(
    experiment, workdir(), data=data, seeds=seeds(), overrides=overrides()
  )
  if _FLAGS.sbatch is None:
    finish(experiment, runs, execute_all(runs), data)
  else:
    _use_slurm(experiment, runs, data)


def chosen(flag: str, names: Iterable[str]) -> list[str]:
  """Returns the names that a flag chooses, or all if it chooses none."""
  names = list(names)
  given = getattr(_FLAGS, flag)
  for name in given:
    if name not in names:
      raise errors.UserError(
        f'--{flag}={name} does not exist; choose from {", ".join(names)}.'
      )
  return given or names


def workdir() -> pathlib.Path:
  """Returns the absolute path of --workdir."""
  if not _FLAGS.workdir:
    raise errors.UserError('--workdir is missing; give one for all runs.')
  return paths.local('--workdir', _FLAGS.workdir)


def seeds() -> list[int]:
  """Returns the seeds of --seeds; an empty list if there are none."""
  given = [text for text in _FLAGS.seeds if text]
  numbers = command_line.whole_numbers('seeds', given)
  if numbers == [0] and len(_FLAGS.seeds) == 1:
    raise errors.UserError(
      '--seeds=0 is no number of seeds; give one, as 3, or write 0, for the '
      'seed 0 alone.'
    )
  return list(range(*numbers)) if len(_FLAGS.seeds) == 1 else numbers


def overrides() -> dict[str, str]:
  """Returns the fields that --set changes in every config."""
  pairs = [text.partition('=') for text in _FLAGS.set]
  for field, equals, _ in pairs:
    if not equals:
      raise errors.UserError(f'--set={field} is no FIELD=VALUE; give a value.')
  return {field: value for field, _, value in pairs}


def execute_all(runs: Sequence[runner.Run]) -> Iterator[runner.Result]:
  """Trains runs on the GPUs of --gpus; yields results as runs end."""
  numbers = _FLAGS.gpus or _visible_gpus()
  devices = [{'CUDA_VISIBLE_DEVICES': number} for number in numbers]
  return runner.execute_all(runs, devices or [{}])


def _visible_gpus() -> list[str]:
  """Returns the names of the GPUs that JAX finds.

  Another process counts them: JAX would take their memory in this one.
  """
  code = 'import jax; print(sum(d.platform == "gpu" for d in jax.devices()))'
  asked = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  if asked.returncode:
    *_, last = asked.stderr.splitlines() or ['no message']
    raise errors.UserError(f'JAX finds no devices here ({last}).')
  count, given = int(asked.stdout), os.environ.get('CUDA_VISIBLE_DEVICES')
  names = given.split(',') if given else map(str, range(count))
  return list(names)[:count]


def _use_slurm(
  experiment: Experiment, runs: Sequence[runner.Run], data: str
) -> None:
  """Writes a script for the missing runs, and the results of the others."""
  if _FLAGS.gpus:
    raise errors.UserError(
      f'--gpus={",".join(_FLAGS.gpus)} is for this machine; with --sbatch, '
      'give --gpus-per-node among its options.'
    )
  missing = [run for run in runs if not runner.has_ended(run)]
  ended = [run for run in runs if run not in missing]
  if missing:
    path = workdir() / 'sweep.sbatch'
    text = sbatch.script(experiment.name, missing, path.parent, _FLAGS.sbatch)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f'{len(missing)} of {len(runs)} runs are not finished. Train them:')
    print(f'sbatch {shlex.quote(str(path))}')
  if ended:
    results = [*runner.execute_all(ended, [{}]), *map(_unfinished, missing)]
    finish(experiment, runs, results, data)


def _unfinished(run: runner.Run) -> runner.Result:
  return runner.outcome(run, f'not finished: {runner.last_output(run)}')


def finish(
  experiment: Experiment,
  runs: Sequence[runner.Run],
  results: Iterable[runner.Result],
  data: str = '',
) -> None:
  """Writes all results, and exits with code 1 if a run has none.

  Prints the table and the command of the best run.

  Args:
    experiment: Experiment of the runs.
    runs: All runs, in the order of the table.
    results: One result for each run, in any order.
    data: Name of the data trained on; '' for the experiment's own.
  """
  by_name = {(run.variant, run.seed): run for run in runs}
  measured = dict.fromkeys(by_name)
  for result in results:
    name = (result['variant'], result['seed'])
    measured[name] = _measure(experiment, by_name[name], result)
    print(json.dumps(measured[name]), flush=True)
  rows = list(measured.values())
  text, chart = create_table(experiment, rows, data)
  write_results(rows, text, chart, [run.workdir for run in runs])
  print(text)
  best = table.best(rows)
  if best:
    command = shlex.join(('python', 'main.py', *by_name[best].flags))
    print(
      f'The lowest mean error is that of {best[0]}. Its best run:\n{command}'
    )
  sys.exit(any(row['status'] == 'failed' for row in rows))


def _measure(
  experiment: Experiment, run: runner.Run, result: runner.Result
) -> runner.Result:
  result = runner.measure(run, result)
  if result['status'] == 'finished' and experiment.measure:
    result |= experiment.measure(run.workdir)
  return result


def create_table(
  experiment: Experiment, results: Sequence[runner.Result], data: str = ''
) -> tuple[str, figures.Figure]:
  """Returns the text of results.md and the plot; for arguments see `finish`."""
  if experiment.report:
    return experiment.report(results, data)
  rows = table.rows(experiment, results)
  return table.markdown(experiment, rows, data), table.draw(rows)


def as_result(row: dict) -> runner.Result:
  """Returns a row of results.jsonl, or raises if a table cannot show it."""
  is_finished = {'finished': True, 'failed': False}[row['status']]
  numbers = (row['value'], row['training_error'] or 0) if is_finished else ()
  texts = (row['variant'],) if is_finished else (row['variant'], row['reason'])
  if (
    type(row['seed']) is not int
    or not all(isinstance(text, str) for text in texts)
    or not all(map(math.isfinite, numbers))
  ):
    raise ValueError(row)
  return row


def read_results(parse: Callable[[dict], _Parsed]) -> list[_Parsed]:
  """Returns the rows of the file that --results names.

  Args:
    parse: Function of a row that raises if it is not one of this experiment.

  Raises:
    UserError: If it raises, or there are no rows.
  """
  path = paths.local('--results', _FLAGS.results)
  try:
    rows = [parse(json.loads(line)) for line in path.read_text().splitlines()]
  except (KeyError, TypeError, ValueError):
    rows = []
  if not rows:
    raise errors.UserError(
      f'--results={path} is not the result of this experiment; give the '
      'results.jsonl that it wrote.'
    )
  return rows


def rewrite(text: str, chart: figures.Figure) -> None:
  """Writes results.md and plot.png beside the file that --results names."""
  directory = paths.local('--results', _FLAGS.results).parent
  _write_table(directory, text, chart)
  print(text)


def write_results(
  rows: Iterable[Mapping[str, object]],
  text: str,
  chart: figures.Figure,
  runs: Iterable[pathlib.Path],
) -> None:
  """Writes the results and the environment to --workdir.

  Args:
    rows: Rows of results.jsonl, one for each run.
    text: Text of results.md.
    chart: Figure of plot.png.
    runs: Workdirs of the runs.
  """
  directory = workdir()
  (directory / 'results.jsonl').write_text(metrics_file.dump(rows))
  about = json.dumps(_environment(runs), indent=2)
  (directory / 'environment.json').write_text(about + '\n')
  _write_table(directory, text, chart)


def _write_table(
  directory: pathlib.Path, text: str, chart: figures.Figure
) -> None:
  (directory / 'results.md').write_text(text)
  chart.savefig(directory / 'plot.png', dpi=figures.DPI)


def _environment(runs: Iterable[pathlib.Path]) -> dict[str, object]:
  """Returns the environment of the last run, and the commits of all."""
  paths = [run / 'environment.json' for run in runs]
  found = [json.loads(path.read_text()) for path in paths if path.exists()]
  commits = sorted({str(about['git_commit']) for about in found})
  return {
    **(found[-1] if found else {}),
    'git_commit': ', '.join(commits),
    'command': machine.command(),
  }
