"""Checks pass where a network learns, and name what keeps it from it."""

import pytest

from alexnet_jax import checks, errors
from tests import tiny

HIDDEN = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')


@pytest.fixture
def config(tmp_path):
  tiny.prepare_tiny(tmp_path)
  return tiny.get_config(str(tmp_path))


def test_a_network_that_learns_passes(config, capsys):
  before = config.to_json()
  found = checks.run(config)
  assert len(found) == 5
  assert all(check.passed for check in found)
  assert capsys.readouterr().out.count('check: ok') == 5
  assert config.to_json() == before


def _message(config) -> str:
  with pytest.raises(errors.UserError) as caught:
    checks.run(config)
  return str(caught.value)


def test_stuck_at_chance_is_explained(config):
  # The paper's start, for a network that is a hundred times narrower.
  config.model.init = 'normal'
  for layer in HIDDEN:
    config.model[layer].init_bias = 1.0
  message = _message(config)
  assert message.startswith('overfitting 16 images: ')
  assert 'model.init=he' in message


def test_dead_units_are_named(config):
  config.model.conv4.init_bias = -1e3
  message = _message(config)
  assert 'dead channels: 100% at most, in conv4' in message
  # What is below gets no gradient.
  assert 'params' not in message
  for name in ('conv1/kernel', 'conv4/bias'):
    assert name in message
  assert 'fc8/bias' not in message


def test_norms_of_large_inputs_and_a_large_first_loss_are_named(config):
  config.data.scale = 1e-2
  message = _message(config)
  assert 'loss at step 0' in message
  assert 'response norms: divide by' in message
