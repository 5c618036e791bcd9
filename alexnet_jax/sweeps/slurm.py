"""Runs of a sweep as jobs of SLURM, through submitit.

Nodes must see the workdirs, this checkout and its Python under the paths that
they have here; that a job died is known from SLURM's accounts (`sacct`). Jobs
outlive the program. The same sweep again queues all that has not finished; a
job waits for another that still trains its run.
"""

import ast
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import submitit

from alexnet_jax import errors
from alexnet_jax.sweeps import sweep

_POLL_SECONDS = 1.0  # looks for files; submitit asks SLURM less and less often


def parse(pairs: Sequence[str]) -> dict[str, object]:
  """Parameters from texts NAME=VALUE: Python's literals, or else text.

  Raises:
    UserError: where one has no value.
  """
  parameters = {}
  for pair in pairs:
    name, equals, value = pair.partition('=')
    if not equals:
      raise errors.UserError(
        f'--slurm={pair} is no NAME=VALUE; give it as timeout_min=60.'
      )
    parameters[name] = _literal(value)
  return parameters


def _literal(text: str) -> object:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def execute_all(
  runs: Sequence[sweep.Run],
  folder: pathlib.Path,
  parameters: Mapping[str, object],
  cluster: str = 'slurm',
) -> Iterator[sweep.Result]:
  """Executes runs, a job each; those that are finished need none.

  Args:
    runs: in the order in which they queue.
    folder: absolute path, for submitit's files and the jobs' logs.
    parameters: of `submitit.AutoExecutor`.
    cluster: 'local' for processes of this machine, all at once.

  Yields:
    What `sweep.execute` returns, as jobs end. A job that dies is a run that
    failed.

  Raises:
    UserError: where there is no SLURM, or it takes no such jobs.
  """
  executor = _executor(folder, parameters, cluster)
  finished = [run for run in runs if sweep.is_finished(run)]
  yield from map(sweep.outcome, finished)
  jobs = _submit(executor, [run for run in runs if run not in finished])
  for job in submitit.helpers.as_completed(
    list(jobs), poll_frequency=_POLL_SECONDS
  ):
    yield _result(jobs[job], job)


def _executor(
  folder: pathlib.Path, parameters: Mapping[str, object], cluster: str
) -> submitit.AutoExecutor:
  try:
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    executor.update_parameters(**_for_srun(parameters), **parameters)
  except RuntimeError as error:
    raise errors.UserError(
      '--slurm finds no srun; give it on a machine that submits to SLURM, or '
      'leave it out to train here.'
    ) from error
  except (AssertionError, NameError, TypeError, ValueError) as error:
    given = ','.join(f'{name}={value}' for name, value in parameters.items())
    raise errors.UserError(
      f'--slurm={given} is nothing that submitit takes ({_quote(error)}); give '
      'timeout_min, gpus_per_node, cpus_per_task, slurm_partition, ...'
    ) from error
  return executor


def _for_srun(parameters: Mapping[str, object]) -> dict[str, object]:
  """What a job's one process needs in order to have all CPUs of the job.

  From SLURM 22.05 on, srun does not take their number from sbatch.
  """
  count = parameters.get('cpus_per_task')
  if count is None or 'slurm_srun_args' in parameters:
    return {}
  return {'slurm_srun_args': [f'--cpus-per-task={count}']}


def _submit(
  executor: submitit.AutoExecutor, runs: Sequence[sweep.Run]
) -> dict[submitit.Job, sweep.Run]:
  """Queues one array of jobs."""
  if not runs:
    return {}
  try:
    with executor.batch():
      return {executor.submit(_execute, run): run for run in runs}
  except RuntimeError as error:
    raise errors.UserError(
      f'SLURM refused the jobs ({_quote(error)}); change --slurm.'
    ) from error


def _quote(error: Exception) -> str:
  """Its first sentence; lists of all parameters follow."""
  return errors.first_line(error).split('. ')[0].rstrip('.')


def _execute(run: sweep.Run) -> sweep.Result:
  """On the node."""
  try:
    return sweep.execute(run, {})
  except Exception as error:  # of a disk; of submitit, when the time is up
    return sweep.outcome(run, errors.first_line(error))


def _result(run: sweep.Run, job: submitit.Job) -> sweep.Result:
  try:
    return job.results()[0]
  except submitit.core.utils.UncompletedJobError:
    log = f'{job.paths.folder.name}/{job.paths.stderr.name}'
    reason = f'job {job.job_id} died, its state is {job.state}; see {log}.'
    return sweep.outcome(run, reason)
