"""Steps: loss, gradient norm; those that are not finite change nothing."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from alexnet_jax import train_step
from alexnet_jax.models import one_tower
from configs import lenet5
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


class TwoHeads(one_tower.OneTower):
  """Two linear classifiers of the mean colour, one of them auxiliary."""

  @nn.compact
  def __call__(self, images, index=None, *, train=False):
    x, classes = images.mean((1, 2)), self.config.num_classes
    self.sow('auxiliary_logits', 'logits', self.dense('auxiliary', x, classes))
    return self.head(x)


def _gradients(config, params, smoothing, weight):
  """Those of the loss of step 0, by the formula, in float64."""
  batch = in_memory.batch_of(config, 0)
  images = in_memory.preprocessing_of(config)(batch['image'])
  x = np.asarray(images, np.float64).mean((1, 2))
  targets = np.eye(10)[batch['label']] * (1 - smoothing) + smoothing / 10
  gradients = {}
  for name, factor in (('head', 1.0), ('auxiliary', weight)):
    logits = x @ params[name]['kernel'] + params[name]['bias']
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of_logits = factor * (probabilities - targets) / len(x)
    gradients[name] = {'kernel': x.T @ of_logits, 'bias': of_logits.sum(0)}
  return gradients


def test_the_loss_smooths_labels_and_has_auxiliary_heads(monkeypatch):
  monkeypatch.setitem(train_step.MODELS, 'lenet5', TwoHeads)
  config = lenet5.get_config()
  config.data.channels, config.data.scale, config.num_devices = 3, 64.0, 2
  config.optimizer.update({'label_smoothing': 0.1, 'weight_decay': 0.0})
  run = in_memory.Training(config)
  params = run.canonical().params
  run.step()
  # The first velocity is the gradient times the rate, and biases' is doubled.
  velocities = run.canonical().opt_state[-1].trace
  rates = {'kernel': 0.01, 'bias': 0.02}
  found = {
    head: {kind: -x / rates[kind] for kind, x in leaves.items()}
    for head, leaves in velocities.items()
  }

  def differs(smoothing, weight):
    expected = _gradients(config, params, smoothing, weight)
    return not jax.tree.all(
      jax.tree.map(lambda a, b: np.allclose(a, b, 1e-4, 1e-6), found, expected)
    )

  # GoogLeNet's auxiliary losses count .3 (arXiv 1409.4842, section 5).
  assert not differs(smoothing=0.1, weight=0.3)
  assert differs(smoothing=0.0, weight=0.3)
  assert differs(smoothing=0.1, weight=1.0)
