"""Jobs, as processes of this machine: what SLURM adds is submitit's."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest
import submitit

from alexnet_jax import errors
from alexnet_jax.sweeps import slurm, sweep
from tests import test_sweep

ROOT = pathlib.Path(__file__).parents[1]
# One more variant, which takes its job with it.
MAIN = f"""
import os, signal, sys
if '--config.variant=killed' in sys.argv:
  os.kill(os.getppid(), signal.SIGKILL)
{test_sweep.MAIN}
"""
EXPERIMENT = dataclasses.replace(
  test_sweep.EXPERIMENT,
  variants=test_sweep.EXPERIMENT.variants
  | {'killed': sweep.Variant({'variant': 'killed'})},
  seeds=(0,),
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A directory like this one, but for main.py; jobs start in it."""
  (tmp_path / 'alexnet_jax').symlink_to(ROOT / 'alexnet_jax')
  (tmp_path / 'main.py').write_text(MAIN)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  # How long a job that ended may hide its result from a slow disk.
  monkeypatch.setattr(submitit.LocalJob, '_results_timeout_s', 0)
  return tmp_path


def _execute(runs, folder, parameters=None):
  found = slurm.execute_all(runs, folder, parameters or {}, cluster='local')
  return {result['variant']: result for result in found}


def _errors(run):
  rows = (run.workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(row)['top1_error'] for row in rows]


def test_jobs_give_what_processes_give(checkout):
  runs = sweep.plan(EXPERIMENT, checkout / 'jobs')
  results = _execute(runs, checkout / 'slurm')
  killed = results.pop('killed')
  assert (killed['status'], killed['seed']) == ('failed', 0)
  assert 'died' in killed['reason']
  processes = sweep.plan(test_sweep.EXPERIMENT, checkout / 'local', seeds=[0])
  expected = sweep.execute_all(processes, [{}, {}, {}])
  assert results == {result['variant']: result for result in expected}
  assert results['broken']['status'] == 'failed'
  for run, process in zip(runs, processes, strict=False):
    if run.variant != 'broken':
      assert _errors(run) == _errors(process)
  # What is finished is not queued again.
  done = [run for run in runs if run.variant in ('long', 'longer')]
  again = _execute(done, checkout / 'other')
  assert again == {run.variant: results[run.variant] for run in done}
  assert not list((checkout / 'other').iterdir())


def test_sbatch_is_told_what_a_run_needs(checkout, monkeypatch):
  commands = checkout / 'bin'
  commands.mkdir()
  refuse = f'#!/bin/sh\ncp "$1" {commands}/script\necho no more >&2\nexit 1\n'
  for name in ('srun', 'sbatch'):
    (commands / name).write_text(refuse)
    (commands / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{commands}:{os.environ["PATH"]}')
  runs = sweep.plan(EXPERIMENT, checkout / 'jobs')
  parameters = {'timeout_min': 60, 'gpus_per_node': 1, 'cpus_per_task': 8}
  with pytest.raises(errors.UserError, match='refused the jobs .no more'):
    list(slurm.execute_all(runs, checkout / 'slurm', parameters))
  lines = (commands / 'script').read_text().splitlines()
  assert {'#SBATCH --time=60', '#SBATCH --gpus-per-node=1'} < set(lines)
  assert '#SBATCH --array=0-3%4' in lines
  # Not the job alone, but the step in it.
  (step,) = (line for line in lines if line.startswith('srun '))
  assert '--cpus-per-task=8' in step


def test_an_exception_on_a_node_is_a_failure(checkout):
  run, *_ = sweep.plan(EXPERIMENT, checkout / 'jobs')
  (checkout / 'jobs').write_text('no directory')
  result = _execute([run], checkout / 'slurm')[run.variant]
  assert result['status'] == 'failed'
  assert 'Not a directory' in result['reason']


def test_parameters_are_typed():
  pairs = ['timeout_min=60', 'mem_gb=1.5', 'slurm_partition=gpu']
  pairs += ['slurm_time=1-00:00:00', "slurm_setup=['module load cuda']"]
  assert slurm.parse(pairs) == {
    'timeout_min': 60,
    'mem_gb': 1.5,
    'slurm_partition': 'gpu',
    'slurm_time': '1-00:00:00',
    'slurm_setup': ['module load cuda'],
  }
  with pytest.raises(errors.UserError, match='timeout_min is no NAME=VALUE'):
    slurm.parse(['timeout_min'])


@pytest.mark.parametrize('name', ['slurm_typo', 'typo', 'no_such', 'mem_gb'])
def test_wrong_parameters_are_refused(tmp_path, name):
  with pytest.raises(errors.UserError, match=f'--slurm={name}=x '):
    _execute([], tmp_path, {name: 'x'})


def test_without_slurm_a_program_says_so(tmp_path):
  command = [sys.executable, '-m', 'experiments.ablation_lrn']
  command += [f'--workdir={tmp_path}', '--slurm=timeout_min=60']
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=os.environ | {'PATH': ''},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert 'error: --slurm finds no srun; ' in done.stderr.splitlines()[-1]
