"""The same run on 1, 2 and 4 devices."""

import json
import types

import jax
import numpy as np
import pytest

from alexnet_jax import errors, evaluate, parallel, train
from alexnet_jax.workdir import files
from tests import tiny


def _rows(workdir, split='train'):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [row for row in map(json.loads, lines) if row['split'] == split]


def _train(config, workdir, num_devices):
  config.num_devices = num_devices
  state = train.train_and_evaluate(config, workdir)
  return state, [row['loss'] for row in _rows(workdir)]


@pytest.mark.parametrize('towers', [1, 2])
def test_devices_do_not_change_the_run(tmp_path, towers):
  tiny.prepare_tiny(tmp_path)
  get = {1: tiny.get_one_tower_config, 2: tiny.get_config}[towers]
  runs = {
    n: _train(get(str(tmp_path)), tmp_path / f'run{n}', n) for n in (1, 2, 4)
  }
  state, losses = runs[1]
  assert np.mean(losses[5:]) < np.mean(losses[:5])
  for n in (2, 4):
    other_state, other_losses = runs[n]
    np.testing.assert_allclose(other_losses[0], losses[0], rtol=1e-5)
    np.testing.assert_allclose(other_losses[9], losses[9], rtol=1e-4)
    for a, b in zip(
      jax.tree.leaves(state.params),
      jax.tree.leaves(other_state.params),
      strict=True,
    ):
      assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def test_checkpoint_of_two_devices_evaluates_the_same_on_others(tmp_path):
  tiny.prepare_tiny(tmp_path)
  workdir = tmp_path / 'run'
  _train(tiny.get_config(str(tmp_path)), workdir, 2)
  expected = _rows(workdir, 'validation')[-1]
  for n in (1, 4):
    # 9 does not divide by the two slices of four devices.
    overrides = {'num_devices': n, 'batch_size': 9}
    config = files.evaluation_config(workdir, overrides)
    result = evaluate.evaluate_run(config, workdir)
    assert result['examples'] == tiny.COUNTS['validation']
    assert result['step'] == 10
    assert result['top1_error'] == expected['top1_error']
    assert result['top5_error'] == expected['top5_error']
    np.testing.assert_allclose(result['loss'], expected['loss'], rtol=1e-5)


def test_state_survives_the_way_to_devices_and_back():
  state = {
    'tower': np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    'head': np.arange(6, dtype=np.float32).reshape(3, 2),
    'step': np.int32(7),
  }
  by_tower = {'tower': True, 'head': False, 'step': False}
  plan = parallel.make_plan(2, 4)
  placed = plan.put_state(state, by_tower)
  # Device d * T + t holds tower t.
  shards = sorted(placed['tower'].addressable_shards, key=lambda s: s.device.id)
  for device, shard in enumerate(shards):
    np.testing.assert_array_equal(shard.data[0, 0], state['tower'][device % 2])
  back = plan.get_state(placed, by_tower)
  jax.tree.map(np.testing.assert_array_equal, back, state)


def test_options_that_xla_lacks_are_left_out_and_named(monkeypatch, caplog):
  real = {'xla_cpu_enable_fast_math': False}
  lacking = {'xla_cpu_nonsense': 1, 'xla_backend_optimization_level': 'high'}
  monkeypatch.setenv('XLA_FLAGS', '')
  for _ in range(2):  # named once
    assert parallel._usable(real | lacking) == real
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 2
  for message, (name, value) in zip(messages, lacking.items(), strict=True):
    assert f'{name}={value} is left out' in message


def test_a_program_compiles_without_the_options_that_xla_lacks(monkeypatch):
  options = parallel._usable({'xla_cpu_nonsense': 2})
  monkeypatch.setattr(parallel, 'compiler_options', lambda _: options)
  plan = parallel.make_plan(1, 1)
  double = plan.compile(lambda x: 2 * x, deterministic=False, donate=False)
  assert double(plan.put_batch(np.float32(3))) == 6


def _batch() -> dict[str, np.ndarray]:
  return {'image': np.arange(36).reshape(12, 3), 'label': np.arange(12)}


def _assert_slices(parts: dict[int, np.ndarray], whole, towers, devices):
  """`parts` by device: d * T + t holds slice d of `whole`."""
  slices = np.split(whole, devices // towers)
  for device, part in parts.items():
    np.testing.assert_array_equal(part, slices[device // towers][None])


@pytest.mark.parametrize('towers', [1, 2])
def test_every_device_gets_its_slice_of_the_batch(towers):
  plan = parallel.make_plan(towers, 4)
  assert plan.share(12) == slice(0, 12)
  placed = plan.put_batch(_batch())
  for name, whole in _batch().items():
    shards = placed[name].addressable_shards
    parts = {s.device.id: np.asarray(s.data) for s in shards}
    assert sorted(parts) == [0, 1, 2, 3]
    _assert_slices(parts, whole, towers, 4)


@pytest.mark.parametrize(
  'towers, owners, shares',
  [
    (1, [0, 0, 1, 1], [slice(0, 6), slice(6, 12)]),
    (2, [0, 0, 1, 1], [slice(0, 6), slice(6, 12)]),
    (1, [0, 1, 1, 1], [slice(0, 3), slice(3, 12)]),
    (1, [0, 1], [slice(0, 6), slice(6, 12)]),
    # Both work on the same examples.
    (2, [0, 1], [slice(0, 12), slice(0, 12)]),
    (2, [0, 1, 2, 3], [slice(0, 6)] * 2 + [slice(6, 12)] * 2),
  ],
)
def test_every_process_reads_what_its_devices_need(
  monkeypatch, towers, owners, shares
):
  plan = parallel.make_plan(towers, len(owners))
  plan._devices = [types.SimpleNamespace(process_index=p) for p in owners]

  def make_array(shape, sharding, callback):
    """As jax's: asks for the shards of the process's own devices."""
    del sharding
    assert shape[:2] == (len(owners), 12 * towers // len(owners))
    rest = [slice(None)] * (len(shape) - 1)
    own = [d for d, p in enumerate(owners) if p == jax.process_index()]
    return {d: callback((slice(d, d + 1), *rest)) for d in own}

  monkeypatch.setattr(jax, 'make_array_from_callback', make_array)
  for process, share in enumerate(shares):
    monkeypatch.setattr(jax, 'process_index', lambda p=process: p)
    assert plan.share(12) == share
    own = {name: whole[share] for name, whole in _batch().items()}
    placed = plan.put_batch(own)
    for name, whole in _batch().items():
      assert len(placed[name]) == owners.count(process)
      _assert_slices(placed[name], whole, towers, len(owners))


@pytest.mark.parametrize(
  'towers, devices, batch, named',
  [
    (2, 3, 12, 'model.towers=2'),
    (1, 4, 6, 'batch_size=6'),
    (1, 9, 8, 'num_devices=9'),
    (1, -1, 8, 'num_devices=-1'),
  ],
)
def test_counts_that_do_not_fit_are_refused(towers, devices, batch, named):
  with pytest.raises(errors.UserError, match=named):
    parallel.check_batch_size(parallel.make_plan(towers, devices), batch)
