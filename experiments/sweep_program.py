"""Flags and results that all sweep programs share.

Each run is a process of `main.py`, one for each GPU at a time (on CPUs, one at
a time). The same command again skips what is finished and goes on with the
rest. Writes to --workdir: results.md, results.jsonl (a run a line), plot.png,
environment.json, and VARIANT/seed-N/ for each run, with its log.txt.

    --gpus=0,0,0

makes three at a time on the first GPU, which small networks leave idle (set
XLA_PYTHON_CLIENT_PREALLOCATE=false, or the first takes most of its memory).

    --slurm=timeout_min=1440,slurm_partition=gpu,gpus_per_node=1

makes every run a job of SLURM instead, with parameters of submitit and logs in
slurm/.

    --results=experiments/results/ablation_network/results.jsonl

trains nothing: it rewrites results.md and plot.png beside that file, from the
rows in it. Of the other flags it reads --data only.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from absl import flags
from matplotlib import figure

from alexnet_jax import command_line, errors
from alexnet_jax import rows as rows_lib
from alexnet_jax.figures import picture
from alexnet_jax.sweeps import slurm, sweep, sweep_results
from experiments.benchmarking import machine

_FLAGS = flags.FLAGS


def define_flags() -> None:
  """Flags of any program that runs a sweep, which the functions below read.

  Called when a program runs, so that tests can import several.
  """
  flags.DEFINE_string('workdir', None, 'Directory of all runs.')
  flags.DEFINE_list('seeds', [], 'One run of each variant for each.')
  flags.DEFINE_multi_string(
    'set', [], 'FIELD=VALUE of every config, as --set=num_epochs=5.'
  )
  flags.DEFINE_list(
    'gpus',
    [],
    'By number, a process on each; one that is named twice has two. By '
    'default all that are visible.',
  )
  flags.DEFINE_list(
    'slurm',
    [],
    "Runs are jobs of SLURM with these parameters of submitit's, NAME=VALUE; "
    'without timeout_min, of five minutes.',
  )


def workdir() -> pathlib.Path:
  """The absolute --workdir.

  Raises:
    UserError: where it is missing.
  """
  if not _FLAGS.workdir:
    raise errors.UserError('--workdir is missing; give one for all runs.')
  return pathlib.Path(_FLAGS.workdir).expanduser().resolve()


def seeds() -> list[int]:
  """Those of --seeds; none where the program is to choose.

  Raises:
    UserError: where one is no whole number.
  """
  return command_line.whole_numbers('seeds', _FLAGS.seeds)


def overrides() -> dict[str, str]:
  """Fields of every config, as --set has them.

  Raises:
    UserError: where one has no value.
  """
  pairs = [text.partition('=') for text in _FLAGS.set]
  for field, equals, _ in pairs:
    if not equals:
      raise errors.UserError(f'--set={field} is no FIELD=VALUE; give a value.')
  return {field: value for field, _, value in pairs}


def execute_all(runs: Sequence[sweep.Run]) -> Iterator[sweep.Result]:
  """Executes runs where the flags say: by --slurm, on --gpus, or here.

  Yields:
    What `sweep.execute` returns, as runs end.

  Raises:
    UserError: where --slurm cannot work.
  """
  if not _FLAGS.slurm:
    return sweep.execute_all(runs, _devices())
  if _FLAGS.gpus:
    raise errors.UserError(
      '--gpus are of this machine; with --slurm, give gpus_per_node=N there.'
    )
  parameters = slurm.parse(_FLAGS.slurm)
  return slurm.execute_all(runs, workdir() / 'slurm', parameters)


def write_results(
  rows: Iterable[Mapping[str, object]],
  text: str,
  chart: figure.Figure,
  runs: Iterable[pathlib.Path],
) -> None:
  """Writes the results and the environment to the workdir.

  Args:
    rows: Rows of results.jsonl, a run each.
    text: Text of results.md.
    chart: Figure of plot.png.
    runs: Workdirs whose environments environment.json sums up.
  """
  directory = workdir()
  (directory / 'results.jsonl').write_text(rows_lib.dump(rows))
  _write_table(directory, text, chart)
  about = json.dumps(_environment(runs), indent=2)
  (directory / 'environment.json').write_text(about + '\n')


def _write_table(
  directory: pathlib.Path, text: str, chart: figure.Figure
) -> None:
  (directory / 'results.md').write_text(text)
  picture.write(chart, directory / 'plot.png')


def _environment(runs: Iterable[pathlib.Path]) -> dict[str, object]:
  """Where the last one ran, and the commits of all.

  Not this process's, which may be elsewhere, and must leave the GPUs to them.
  """
  paths = [run / 'environment.json' for run in runs]
  found = [json.loads(path.read_text()) for path in paths if path.exists()]
  commits = sorted({str(about['git_commit']) for about in found})
  last = found[-1] if found else {}
  return {
    **last,
    'git_commit': ', '.join(commits),
    'command': machine.command(),
  }


def run(experiment: sweep.Experiment) -> None:
  """The whole program of an experiment."""
  define_flags()
  flags.DEFINE_string(
    'data',
    '',
    'Other data than the claim is about: cifar10, shapes or folder=PATH.',
  )
  flags.DEFINE_list('variants', [], 'Which; by default all.')
  flags.DEFINE_string(
    'results',
    None,
    'A results.jsonl; results.md and plot.png beside it are rewritten from its '
    'rows, and nothing is trained.',
  )
  command_line.run(functools.partial(_main, experiment))


def _devices() -> list[dict[str, str]]:
  """Returns the environment variables that give each process one device.

  Another process counts the GPUs: JAX would take their memory in this one.
  """
  numbers = _FLAGS.gpus
  if not numbers:
    code = 'import jax; print(sum(d.platform == "gpu" for d in jax.devices()))'
    asked = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    if asked.returncode:
      *_, last = asked.stderr.splitlines() or ['no message']
      raise errors.UserError(f'JAX finds no devices here ({last}).')
    count, given = int(asked.stdout), os.environ.get('CUDA_VISIBLE_DEVICES')
    names = given.split(',') if given else map(str, range(count))
    numbers = list(names)[:count]
  return [{'CUDA_VISIBLE_DEVICES': number} for number in numbers] or [{}]


def _check_variants(experiment: sweep.Experiment) -> None:
  for name in _FLAGS.variants:
    if name not in experiment.variants:
      raise errors.UserError(
        f'--variants={name} does not exist; choose from '
        f'{", ".join(experiment.variants)}.'
      )


def _execute(runs: list[sweep.Run]) -> list[sweep.Result]:
  """Returns the results of all runs, in the order of the runs."""
  by_name = {(run.variant, run.seed): run for run in runs}
  results = {}
  for result in execute_all(runs):
    name = (result['variant'], result['seed'])
    results[name] = sweep.measure(by_name[name], result)
    print(json.dumps(results[name]), flush=True)
  return [results[name] for name in by_name]


def _read_results(path: pathlib.Path) -> list[sweep.Result]:
  """Returns the rows of a sweep's results.jsonl.

  Raises:
    UserError: The file has no rows, or a line that is no row.
  """
  try:
    results = [json.loads(line) for line in path.read_text().splitlines()]
    variants = [result['variant'] for result in results]
  except (KeyError, TypeError, ValueError):
    variants = []
  if not variants:
    raise errors.UserError(
      f'--results={path} is not the result of a sweep; give the results.jsonl '
      'that a sweep wrote.'
    )
  return results


def _table(
  experiment: sweep.Experiment, results: list[sweep.Result]
) -> tuple[str, figure.Figure]:
  """Returns the text of results.md and the plot."""
  table = sweep_results.rows(experiment, results)
  text = sweep_results.markdown(experiment, table, _FLAGS.data)
  return text, sweep_results.draw(table)


def _rewrite(experiment: sweep.Experiment, path: pathlib.Path) -> None:
  """Rewrites results.md and plot.png beside a results.jsonl."""
  text, chart = _table(experiment, _read_results(path))
  _write_table(path.parent, text, chart)
  print(text)


def _main(experiment: sweep.Experiment, _) -> None:
  """Runs an experiment as the flags say; exit code 1 where a run failed."""
  if _FLAGS.results:
    _rewrite(experiment, pathlib.Path(_FLAGS.results).expanduser())
    return
  _check_variants(experiment)
  if _FLAGS.variants:
    chosen = {name: experiment.variants[name] for name in _FLAGS.variants}
    experiment = dataclasses.replace(experiment, variants=chosen)
  runs = sweep.plan(
    experiment,
    workdir(),
    data=_FLAGS.data,
    seeds=seeds(),
    overrides=overrides(),
  )
  results = _execute(runs)
  text, chart = _table(experiment, results)
  write_results(results, text, chart, [run.workdir for run in runs])
  print(text)
  sys.exit(any(result['status'] == 'failed' for result in results))
