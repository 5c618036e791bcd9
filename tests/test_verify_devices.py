"""All devices against one, and the per-device program without pmap."""

import functools
import types

import jax
import numpy as np
import pytest

from alexnet_jax import parallel
from alexnet_jax.tools import verify_devices
from tests import in_memory

_OPTIONS = {'xla_backend_optimization_level': 0}  # compiles faster


@pytest.fixture(scope='module', autouse=True)
def one_device_trains_once():
  many, create = verify_devices.train, verify_devices.create_config
  one = functools.cache(lambda: many(create(1, 32)))

  def train(config):
    return one() if config.num_devices == 1 else many(config)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'compiler_options', lambda _: _OPTIONS)
    patch.setattr(verify_devices, 'train', train)
    yield


@pytest.mark.parametrize('count', [2, 4])
def test_devices_agree(count, capsys):
  assert verify_devices.verify(count)
  printed = capsys.readouterr().out
  assert f'\n| {count} | 2 x {count // 2} |' in printed
  assert printed.endswith('The devices agree.\n')


def test_gradients_of_the_wrong_group_are_found(monkeypatch, capsys):
  real = parallel.ManyDevices.sum_gradients

  def sum_over_towers(plan, *args):
    return real(types.SimpleNamespace(_data_groups=plan.towers.groups), *args)

  monkeypatch.setattr(parallel.ManyDevices, 'sum_gradients', sum_over_towers)
  with pytest.raises(SystemExit, match='^1$'):
    verify_devices.main([])
  assert 'do not agree: gradients of the first' in capsys.readouterr().out


@pytest.mark.parametrize('count, used', [(1, []), (3, [2])])
def test_any_number_of_devices(monkeypatch, capsys, count, used):
  devices, asked = [types.SimpleNamespace(device_kind='GPU')] * count, []
  monkeypatch.setattr(jax, 'devices', lambda: devices)
  monkeypatch.setattr(verify_devices, 'verify', lambda n: asked.append(n) or 1)
  verify_devices.main([])
  assert asked == used
  said = 'an even number: 2 are' if used else 'There is nothing to compare.'
  assert said in capsys.readouterr().out


def test_the_program_runs_without_pmap():
  """Runs it with shard_map, as parallel.py would if JAX dropped pmap.

  With check_vma=True, jax 0.10.2 refuses `axis_index_groups`.
  """
  training = in_memory.Training(verify_devices.create_config(4, 8))
  run, axis = training.run, jax.P('devices')
  program, scale = run.train_program, run.put_everywhere(np.float32(1))

  def per_device(*trees):
    out = program(*jax.tree.map(lambda x: x[0], trees))
    return jax.tree.map(lambda x: x[None], out)

  args = {'mesh': training.state.step.sharding.mesh, 'check_vma': False}
  mapped = jax.shard_map(per_device, in_specs=axis, out_specs=axis, **args)
  batch = run.plan.put_batch(in_memory.batch_of(run.config, 0))
  jitted = jax.jit(mapped, compiler_options=_OPTIONS)
  found = run.get_state(jitted(training.state, batch, scale)[0])
  training.step()  # with pmap; it reuses the state's buffers
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(compare, found, training.canonical())
