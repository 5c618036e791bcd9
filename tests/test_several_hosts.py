"""Two processes share a global batch, and evaluate every example once."""

import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax import evaluate, parallel, train_state
from alexnet_jax.data import preprocessing
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def _run_both(data_dir: pathlib.Path) -> list[dict]:
  """What each of the two processes prints last."""
  port = str(_free_port())
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
