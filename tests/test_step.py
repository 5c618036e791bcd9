"""Steps report the gradient norm; those that are not finite change nothing."""

import jax
import numpy as np
import pytest

from alexnet_jax import train_step
from tests import in_memory, tiny


def _config(devices=1):
  config = tiny.get_config('')
  config.num_devices, config.model.omit = devices, 'conv3,conv4,conv5,fc7'
  return config


@pytest.fixture(scope='module')
def start():
  return train_step.create_train_state(_config())


@pytest.fixture(scope='module', params=[1, 2])
def run(request, start):
  return in_memory.Training(_config(request.param), start)


def _kept(state):
  """What a bad step must leave alone."""
  return jax.tree.leaves((state.params, state.opt_state))


def _spoil(state, layer, leaf, function):
  """`state` with `function` of one parameter."""
  params = jax.tree.map(np.copy, state.params)
  params[layer][leaf] = function(params[layer][leaf])
  return state.replace(params=params)


def _check_bad_step(run, first_nonfinite_step):
  """Does a step that is to change nothing; its loss."""
  before = run.canonical()
  loss = run.step()
  after = run.canonical()
  for a, b in zip(_kept(before), _kept(after), strict=True):
    np.testing.assert_array_equal(a, b)
  assert after.step == before.step + 1
  assert after.first_nonfinite_step == first_nonfinite_step
  return loss


def _check_good_step(run, first_nonfinite_step):
  """Does a step that is to change every parameter and velocity."""
  before = run.canonical()
  assert np.isfinite(run.step())
  after = run.canonical()
  for a, b in zip(_kept(before), _kept(after), strict=True):
    assert (a != b).any()
  assert after.first_nonfinite_step == first_nonfinite_step


def test_a_bad_loss_changes_nothing_and_the_first_is_remembered(run, start):
  run.put(start)
  _check_good_step(run, first_nonfinite_step=-1)
  good = run.canonical()
  run.put(_spoil(good, 'fc8', 'bias', lambda bias: bias + np.inf))
  assert np.isnan(_check_bad_step(run, first_nonfinite_step=2))
  assert np.isnan(_check_bad_step(run, first_nonfinite_step=2))
  run.put(good.replace(first_nonfinite_step=np.int32(2)))
  _check_good_step(run, first_nonfinite_step=2)


def test_the_gradient_norm_is_that_of_the_whole_network(run, start):
  run.put(start)
  run.step()
  after, optimizer = run.canonical(), _config().optimizer
  rate, squares = optimizer.learning_rate, 0.0
  velocities = after.opt_state[-1].trace
  for layer, leaves in start.params.items():
    for kind, weights in leaves.items():
      decay = optimizer.weight_decay * (kind == 'kernel')
      velocity = velocities[layer][kind].astype(np.float64)
      gradient = -velocity / rate - decay * weights
      squares += np.sum(gradient**2)
  norm = after.metric_sums['gradient_norm'] / after.metric_sums['examples']
  np.testing.assert_allclose(norm, np.sqrt(squares), rtol=1e-5)


def test_a_bad_gradient_of_one_tower_is_enough(run, start):
  """Neither the loss nor what the other tower's device has tells of it."""

  def only_tower_0(kernel, factor):
    return np.stack([kernel[0] * factor, np.zeros_like(kernel[1])])

  state = start.replace(step=np.int32(6))
  state = _spoil(state, 'conv1', 'kernel', lambda k: only_tower_0(k, 1e-33))
  state = _spoil(state, 'conv2', 'kernel', lambda k: only_tower_0(k, 1e33))
  state = _spoil(state, 'fc8', 'kernel', lambda k: 1e7 * k)
  run.put(state)
  assert np.isfinite(_check_bad_step(run, first_nonfinite_step=7))
