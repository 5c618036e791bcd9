"""Signals: what is saved, and what goes on from it."""

import signal
import subprocess
import sys
import time

import pytest

from alexnet_jax import errors, evaluate, parallel, train
from experiments.faults import trial
from tests import runs, tiny


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  tiny.prepare_tiny(path)
  return str(path)


@pytest.fixture(scope='module')
def undisturbed(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  return train.train_and_evaluate(tiny.get_config(data_dir), workdir), workdir


def _signal_at(monkeypatch, owner, name, calls):
  """Has `owner.name` raise a SIGTERM at its calls of these numbers."""
  function, numbers = getattr(owner, name), iter(range(1, 1000))

  def wrapped(*args, **kwargs):
    if next(numbers) in calls:
      signal.raise_signal(signal.SIGTERM)
    return function(*args, **kwargs)

  monkeypatch.setattr(owner, name, wrapped)


# Ten steps, evaluated and saved at 5 and 10, logged at each.
@pytest.mark.parametrize(
  'owner, name, calls, saved',
  [
    (parallel.OneDevice, 'put_batch', [3], 3),  # between
    (parallel.OneDevice, 'put_batch', [5], 5),  # where all is due
    (parallel.OneDevice, 'put_batch', [6], 5),  # in an evaluation
    (evaluate.Evaluator, '__call__', [2], 10),  # in the last one
  ],
)
def test_a_signal_loses_no_step(
  data_dir, tmp_path, undisturbed, monkeypatch, owner, name, calls, saved
):
  config = tiny.get_config(data_dir)
  with monkeypatch.context() as patch:
    _signal_at(patch, owner, name, calls)
    with pytest.raises(errors.Interrupted, match=f'after step {saved},'):
      train.train_and_evaluate(config, tmp_path)
  assert trial.newest(tmp_path).step == saved
  state = train.train_and_evaluate(config, tmp_path)
  expected, workdir = undisturbed
  runs.assert_same(state, expected)
  assert trial.rows(tmp_path) == trial.rows(workdir)
  runs.assert_same(trial.newest(tmp_path), expected)


def test_the_second_signal_acts_at_once():
  code = (
    'import time\n'
    'from alexnet_jax.interruption import Interruption\n'
    'with Interruption():\n'
    '  print("ready", flush=True)\n'
    '  time.sleep(60)\n'
    '  print("once", flush=True)\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
