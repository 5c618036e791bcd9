"""Signals: which step is saved, and that the same run goes on from it."""

import signal
import subprocess
import sys
import time

import pytest

from alexnet_jax import errors, parallel, train
from tests import runs, tiny
from tests.faults import trial


def _train(config, workdir, monkeypatch, number, sent=signal.SIGTERM):
  """Trains with a signal before the batch of this number is used."""
  put_batch, numbers = parallel.OneDevice.put_batch, iter(range(1, 1000))

  def wrapped(*args):
    if next(numbers) == number:
      signal.raise_signal(sent)
    return put_batch(*args)

  with monkeypatch.context() as patch:
    patch.setattr(parallel.OneDevice, 'put_batch', wrapped)
    return train.train_and_evaluate(config, workdir)


def test_signals_lose_no_step(tmp_path, monkeypatch):
  tiny.prepare_tiny(tmp_path)
  config = tiny.get_config(str(tmp_path))
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  expected = train.train_and_evaluate(config, whole)
  # Ten steps, logged at each, evaluated with two batches and saved at 5 and 10.
  for number, saved, sent in (
    (3, 3, signal.SIGTERM),  # between two steps
    (2, 5, signal.SIGINT),  # at the step after which all is due
    # In the evaluation that is due after the restored step.
    (1, 5, signal.SIGUSR1),
    # After that evaluation and five steps, in the last evaluation.
    (8, 10, signal.SIGUSR2),
  ):
    with pytest.raises(errors.Interrupted, match=f'after step {saved},') as e:
      _train(config, stopped, monkeypatch, number, sent)
    assert e.value.number == sent  # the exit code is 128 + this
    assert trial.newest(stopped).step == saved
  runs.assert_same(train.train_and_evaluate(config, stopped), expected)
  assert trial.rows(stopped) == trial.rows(whole)
  runs.assert_same(trial.newest(stopped), expected)


def test_the_second_signal_acts_at_once():
  code = (
    'import time\n'
    'from alexnet_jax.signals import Signals\n'
    'with Signals():\n'
    '  print("ready", flush=True)\n'
    '  time.sleep(60)\n'
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
