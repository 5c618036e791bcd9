"""What a trace holds, and that it changes nothing else."""

import json

import jax
import numpy as np
import pytest

from alexnet_jax import evaluate, metrics_log, profiler, train
from alexnet_jax import workdir as workdir_lib
from tests import tiny


def _traced(workdir) -> list[str]:
  """Names of the one trace's events."""
  (path,) = workdir.glob('plugins/profile/*/*.xplane.pb')
  planes = jax.profiler.ProfileData.from_file(str(path)).planes
  return [e.name for p in planes for line in p.lines for e in line.events]


def _rows(workdir) -> list[dict]:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) | {'timing': None} for line in lines]


def test_a_traced_run_is_the_same_run(tmp_path):
  tiny.prepare_tiny(tmp_path)
  config = tiny.get_config(str(tmp_path))
  plain, traced = tmp_path / 'plain', tmp_path / 'traced'
  expected = train.train_and_evaluate(config, plain)
  config.train_steps = 5
  train.train_and_evaluate(config, traced)
  config.update({'train_steps': 10, 'profile_steps': 3})
  state = train.train_and_evaluate(config, traced)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert _rows(traced) == _rows(plain)
  names = _traced(traced)
  assert names.count('train') == 3
  assert any('fusion' in name for name in names)  # operations, too
  # Nothing but the steps: the evaluation comes after the last of them.
  assert not any('eval_step' in name for name in names)
  assert not (plain / 'plugins').exists()
  config = workdir_lib.evaluation_config(traced, {})
  assert evaluate.evaluate_run(config, traced)['step'] == 10
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
  with profiler.Profiler(tmp_path, num_steps, first, last) as trace:
    for step in range(first + 1, last + 1):
      trace.before(step, (), metrics_log.Clock(1))
      calls.append(step)
      trace.after(step, (), metrics_log.Clock(1))
  traced = calls[calls.index('start_trace') + 1 :] if expected else []
  assert traced[: len(expected) + 1] == expected + ['stop_trace'] * bool(traced)
  assert calls.count('start_trace') == calls.count('stop_trace') == bool(traced)


def test_a_run_that_ends_early_leaves_its_trace(tmp_path):
  with profiler.Profiler(tmp_path, 9, 0, 100) as trace:
    trace.before(6, (), metrics_log.Clock(1))
  assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))
