"""Several processes share a batch, evaluate every example once, train alike."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from alexnet_jax import evaluate, parallel, train, train_state
from alexnet_jax.data import preprocessing
from experiments.faults import trial
from experiments.faults.hosts import free_port
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent


def _run_both(data_dir: pathlib.Path) -> list[dict]:
  """What each of the two processes prints last."""
  port = str(free_port())
  command = [sys.executable, '-m', 'tests.one_of_two']
  both = [
    subprocess.Popen(
      [*command, str(process), port, str(data_dir)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    for process in range(2)
  ]
  outputs = [process.communicate(timeout=300)[0] for process in both]
  assert [process.returncode for process in both] == [0, 0]
  return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_two_processes_are_as_good_as_one(tmp_path):
  prepared = tiny.prepare_tiny(tmp_path)
  config = tiny.get_config(str(tmp_path))
  plan = parallel.make_plan(config.model.towers, 1)
  process = preprocessing.from_statistics(prepared, config.data)
  params = train_state.create_train_state(config).params
  evaluator = evaluate.create_evaluator(config, plan, process)
  expected, _ = evaluator(params, prepared, 'validation')
  first, second = _run_both(tmp_path)
  # Batch 3 of 16: each has its half of it.
  np.testing.assert_array_equal(first['index'] + second['index'], range(48, 64))
  for found in (first['values'], second['values']):
    assert found['examples'] == tiny.COUNTS['validation']
    assert found['top1_error'] == expected['top1_error']
    assert found['loss'] == pytest.approx(expected['loss'], rel=1e-6)


def _start(workdir, data_dir, count: int, steps: int) -> list:
  """Processes of main.py, a device each."""
  command = [
    sys.executable,
    'main.py',
    f'--config=tests/tiny.py:{data_dir}',
    f'--workdir={workdir}',
    '--config.num_devices=0',
    f'--config.train_steps={steps}',
    f'--coordinator=localhost:{free_port()}',
    f'--num_processes={count}',
  ]
  return [
    subprocess.Popen(
      [*command, f'--process_id={number}'],
      cwd=ROOT,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(count)
  ]


def _finish(processes: list) -> list[str]:
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  codes = [process.returncode for process in processes]
  assert codes == [0] * len(codes), '\n'.join(outputs)
  return outputs


def test_two_processes_train_like_one_and_one_goes_on(tmp_path):
  tiny.prepare_tiny(tmp_path / 'data')
  config = tiny.get_config(str(tmp_path / 'data'))
  expected = train.train_and_evaluate(config, tmp_path / 'one')
  # A tower each: no process has the whole state.
  workdir = tmp_path / 'two'
  first, second = _finish(_start(workdir, tmp_path / 'data', 2, steps=5))
  assert 'parameters in 2 tower(s) on 2 device(s)' in first
  assert 'parameters' not in second
  assert trial.newest(workdir).step == 5
  state = train.train_and_evaluate(config, workdir)
  rows = trial.rows(workdir)
  for row, other in zip(rows, trial.rows(tmp_path / 'one'), strict=True):
    assert row['loss'] == pytest.approx(other['loss'], rel=1e-5)
    assert row | {'loss': 0} == other | {'loss': 0}
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
