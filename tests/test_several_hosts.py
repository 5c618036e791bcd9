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


def _run_both(*arguments: str, devices: int = 1) -> list[tuple[int, str]]:
  """Returns exit code and output of two processes of one run.

  Args:
    *arguments: Arguments of Python; `NUMBER` becomes the process's number.
    devices: Devices of each process.
  """
  both = [
    subprocess.Popen(
      [sys.executable, *(x.replace('NUMBER', str(i)) for x in arguments)],
      cwd=ROOT,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=200)[0] for process in both]
  codes = [process.returncode for process in both]
  return list(zip(codes, outputs, strict=True))


def _train_both(workdir, data_dir, *arguments: str, devices: int = 1):
  return _run_both(
    'main.py',
    f'--config=tests/tiny.py:{data_dir}',
    f'--workdir={workdir}',
    '--config.num_devices=0',
    f'--coordinator=localhost:{hosts.free_port()}',
    '--num_processes=2',
    '--process_id=NUMBER',
    *arguments,
    devices=devices,
  )


# With a device each, each process has one tower and not the whole state; one
# process then goes on. With two devices each, each has half of every batch.
@pytest.mark.parametrize('devices, steps', [(1, 5), (2, 10)])
def test_two_processes_are_like_one_and_one_goes_on(
  data_dir, expected, tmp_path, devices, steps
):
  (code, first), (other_code, second) = _train_both(
    tmp_path, data_dir, f'--config.train_steps={steps}', devices=devices
  )
  assert (code, other_code) == (0, 0), first + second
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


def test_another_config_in_one_process_ends_all(data_dir, tmp_path):
  both = _train_both(tmp_path, data_dir, '--config.seed=NUMBER')
  for code, output in both:
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith('error: process ')
    assert 'has seed=1 but process 0 on' in last
  assert not (tmp_path / 'config.json').exists()


_ONE_RAISES = """
import sys
import time
from alexnet_jax import errors, multihost

number = int(sys.argv[2])
multihost.initialize(f'localhost:{sys.argv[1]}', 2, number)
with multihost.shared_fate():
  assert multihost.broadcast({'of': number}) == {'of': 0}
  if number == 0:
    try:
      multihost.sync('the place', 0.02)
    except errors.UserError as error:
      print(error)
    multihost.broadcast('waits for ever')
  time.sleep(3)
  raise ValueError('a mistake of process 1')
"""


def test_an_error_in_one_process_ends_all():
  port = str(hosts.free_port())
  (code, first), (other_code, second) = _run_both(
    '-c', _ONE_RAISES, port, 'NUMBER'
  )
  assert (code, other_code) == (1, 1), first + second
  assert 'the place: process 1 has not come within 0.02 minutes' in first
  for output in (first, second):
    last = output.splitlines()[-1]
    assert last.startswith('error: process 1 on ')
    assert last.endswith('ValueError: a mistake of process 1')
