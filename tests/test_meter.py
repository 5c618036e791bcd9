"""Traces of training steps, and the time that steps wait for input."""

import time

import jax
import numpy as np
import pytest

from alexnet_jax import evaluate, train
from alexnet_jax.meter import Meter
from alexnet_jax.workdir import files
from tests import runs, tiny
from tests.faults import trial


def _traced(workdir) -> list[str]:
  """Returns the names of the events of the only trace."""
  (path,) = workdir.glob('plugins/profile/*/*.xplane.pb')
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  return [e.name for p in planes for line in p.lines for e in line.events]


def test_a_traced_run_is_the_same_run(tmp_path):
  tiny.prepare_tiny(tmp_path)
  config = tiny.get_config(str(tmp_path))
  config.train_steps, config.eval_every_steps = 9, 5
  plain, traced = tmp_path / 'plain', tmp_path / 'traced'
  expected = train.train_and_evaluate(config, plain)
  config.profile_steps = 3
  runs.assert_same(train.train_and_evaluate(config, traced), expected)
  assert trial.rows(traced) == trial.rows(plain)
  names = _traced(traced)
  assert names.count('train') == 3
  assert any('fusion' in name for name in names)  # operations, too
  # Nothing but steps 6 to 8: evaluations are due after steps 5 and 9.
  assert not any('eval_step' in name for name in names)
  assert not (plain / 'plugins').exists()
  config = files.evaluation_config(traced, {})
  assert evaluate.evaluate_run(config, traced)['step'] == 9
  assert len(list(traced.glob('plugins/profile/*'))) == 1


@pytest.mark.parametrize(
  'num_steps, first, last, expected',
  [
    (3, 0, 100, [6, 7, 8]),
    (3, 40, 100, [46, 47, 48]),
    (3, 0, 5, [3, 4, 5]),
    (9, 0, 4, [2, 3, 4]),
    (3, 0, 1, []),
    (0, 0, 100, []),
  ],
)
def test_a_trace_leaves_the_first_steps_out(
  monkeypatch, tmp_path, num_steps, first, last, expected
):
  calls = []
  for name in ('start_trace', 'stop_trace'):
    monkeypatch.setattr(
      jax.profiler, name, lambda *_, name=name, **__: calls.append(name)
    )
  with Meter(tmp_path, 1, first, last, num_steps) as meter:
    batches = meter.timed([()] * (last - first))
    for step, _ in enumerate(batches, first + 1):
      calls.append(step)
      meter.count_and_wait(step, ())
  traced = calls[calls.index('start_trace') + 1 :] if expected else []
  assert traced[: len(expected) + 1] == expected + ['stop_trace'] * bool(traced)
  assert calls.count('start_trace') == calls.count('stop_trace') == bool(traced)


def test_a_run_that_ends_early_leaves_its_trace(tmp_path):
  with Meter(tmp_path, 1, 0, 100, num_traced=9) as meter:
    for step, _ in enumerate(meter.timed([(), ()]), 5):
      meter.count_and_wait(step, ())
  assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))


def test_the_length_of_the_run_is_said_once(tmp_path, capsys):
  with Meter(tmp_path, 1, 40, 100) as meter:
    for step, _ in enumerate(meter.timed([()] * 60), 41):
      meter.count_and_wait(step, ())
  # After a step that compiles and five more.
  assert capsys.readouterr().out.count('minutes for 54 steps') == 1


def test_waiting_is_what_input_takes_after_a_step_has_ended(tmp_path):
  def batches(pause):
    for _ in range(4):
      time.sleep(pause)
      yield ()

  def waited(pause, step_seconds):
    """Returns the seconds that two of three steps have waited."""
    # The first step compiles, and a new window begins after it.
    with Meter(tmp_path, 1, 0, 4) as meter:
      for step, _ in enumerate(meter.timed(batches(pause)), 1):
        meter.count_and_wait(step, _Outputs(step_seconds))
      return meter.read()['input_seconds']

  assert waited(pause=0.1, step_seconds=0) > 0.25
  assert waited(pause=0.02, step_seconds=0.5) < 0.05


class _Outputs:
  """Arrays that are ready after some seconds."""

  def __init__(self, seconds):
    self._ready = time.monotonic() + seconds

  def block_until_ready(self):
    time.sleep(max(0, self._ready - time.monotonic()))
    return np.zeros(())
