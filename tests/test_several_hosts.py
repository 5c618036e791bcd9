"""Several processes train and evaluate one run together, like one process."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from alexnet_jax import train
from tests import tiny
from tests.faults import hosts, trial

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  tiny.prepare_tiny(path)
  return str(path)


@pytest.fixture(scope='module')
def expected(data_dir, tmp_path_factory):
  """The parameters and the rows of one process."""
  workdir = tmp_path_factory.mktemp('one')
  state = train.train_and_evaluate(tiny.get_config(data_dir), workdir)
  return state.params, trial.rows(workdir)


def _train_both(workdir, data_dir, devices: int, steps: int) -> list[str]:
  """Returns what two processes with so many devices each have printed."""
  command = [
    sys.executable,
    'main.py',
    f'--config=tests/tiny.py:{data_dir}',
    f'--workdir={workdir}',
    '--config.num_devices=0',
    f'--config.train_steps={steps}',
    f'--coordinator=localhost:{hosts.free_port()}',
    '--num_processes=2',
  ]
  both = [
    subprocess.Popen(
      [*command, f'--process_id={number}'],
      cwd=ROOT,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(2)
  ]
  outputs = [process.communicate(timeout=300)[0] for process in both]
  assert [process.returncode for process in both] == [0, 0], outputs
  return outputs


# With a device each, each process has one tower and not the whole state; one
# process then goes on. With two devices each, each has half of every batch.
@pytest.mark.parametrize('devices, steps', [(1, 5), (2, 10)])
def test_two_processes_are_like_one_and_one_goes_on(
  data_dir, expected, tmp_path, devices, steps
):
  first, second = _train_both(tmp_path, data_dir, devices, steps)
  told = f'parameters in 2 tower(s) on {2 * devices} device(s)'
  assert told in first
  assert 'parameters' not in second
  assert trial.newest(tmp_path).step == steps
  config = tiny.get_config(data_dir)
  state = train.train_and_evaluate(config, tmp_path)
  params, rows = expected
  for row, other in zip(trial.rows(tmp_path), rows, strict=True):
    for name in {'loss', 'gradient_norm'} & row.keys():
      assert row.pop(name) == pytest.approx(other[name], rel=1e-5)
    # Every example is counted once.
    assert row.items() <= other.items()
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
