"""Functions that are written for speed, against their plain formulas."""

import functools
import inspect
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import train_step
from alexnet_jax.models import layers
from tests import in_memory, reference, tiny

NAMES = [
  name
  for name, value in vars(reference).items()
  if inspect.isfunction(value) and not name.startswith('_')
]
# Two orders of the same sums of up to 2000 terms.
FLOAT64 = 1e-13
FORWARD, GRADIENT = 1e-5, 1e-4


def shared(name, **settings):
  """A function of (x, kernels): towers that read the same array."""

  def call(module, x, kernels):
    towers = [x] * len(kernels)
    return jnp.stack(getattr(module, name)(towers, kernels, **settings))

  return call


def towers(name, **settings):
  """A function of (x [T, ...], kernels)."""

  def call(module, x, kernels):
    return jnp.stack(getattr(module, name)(list(x), kernels, **settings))

  return call


def tower(name, *args, **settings):
  """A function of one tower, and of what else it takes."""

  def call(module, *arrays):
    return getattr(module, name)(*arrays, *args, **settings)

  return call


LRN = {'k': 2.0, 'alpha': 1e-2}
# The network's own geometries, with fewer features; inputs' shapes.
CASES = [
  # Of 48 columns, the last is of no window.
  (
    shared('convolve_towers', stride=4, padding=(0, 3)),
    [(2, 44, 48, 3), (2, 11, 11, 3, 8)],
  ),
  (
    towers('convolve_towers', stride=4, padding=(1, 2)),
    [(2, 2, 44, 48, 3), (2, 11, 11, 3, 8)],
  ),
  (
    shared('convolve_towers', stride=1, padding=(1, 1)),
    [(2, 13, 13, 32), (2, 3, 3, 32, 16)],
  ),
  (
    towers('convolve_towers', stride=1, padding=(2, 2)),
    [(2, 2, 13, 13, 16), (2, 5, 5, 16, 24)],
  ),
  (
    tower('convolve_locally', side=3, stride=2, padding=(1, 0)),
    [(2, 9, 12, 8), (4, 6, 72, 5)],
  ),
  (tower('add_bias'), [(4, 13, 13, 16), (16,)]),
  (towers('multiply_towers'), [(2, 4, 512), (2, 512, 64)]),
  (tower('local_response_norm', n=5, beta=0.75, **LRN), [(2, 13, 13, 48)]),
  (tower('local_response_norm', n=4, beta=0.5, **LRN), [(2, 13, 13, 48)]),
  (tower('local_response_norm', n=6, beta=1.0, **LRN), [(2, 13, 13, 48)]),
  (
    tower('spatial_response_norm', size=5, k=1.0, scale=0.1, beta=0.75),
    [(2, 13, 14, 16)],
  ),
] + [
  (tower('pool', kind, size=3, stride=2, ceil=ceil), [(2, 13, 14, 16)])
  for kind in ('max', 'avg')
  for ceil in (False, True)
]


def value_and_gradients(function, module, arrays, dtype):
  def both(arrays):
    value, transpose = jax.vjp(functools.partial(function, module), *arrays)
    # A fixed cotangent, without zeros and not constant.
    cotangent = jnp.cos(jnp.arange(value.size, dtype=dtype))
    return value, transpose(cotangent.reshape(value.shape))

  with jax.enable_x64(dtype == 'float64'):
    arrays = [jnp.asarray(array, dtype) for array in arrays]
    return jax.device_get(jax.jit(both)(arrays))


def check(actual, expected, bounds):
  """Values by the first bound, gradients by the second."""
  leaves = (jax.tree.leaves(tree) for tree in (actual, expected))
  for i, (a, b) in enumerate(zip(*leaves, strict=True)):
    assert np.abs(a - b).max() <= bounds[i > 0] * np.abs(b).max()


@pytest.mark.parametrize('function, shapes', CASES)
def test_fast_functions_equal_the_formulas(function, shapes):
  rng = np.random.default_rng(0)
  arrays = [10 * rng.standard_normal(shape) for shape in shapes]
  of = functools.partial(value_and_gradients, function, arrays=arrays)
  expected = of(reference, dtype='float64')
  check(of(layers, dtype='float64'), expected, (FLOAT64, FLOAT64))
  check(of(layers, dtype='float32'), expected, (FORWARD, GRADIENT))


def test_formulas_take_the_place_of_fast_functions():
  for name in NAMES:
    fast, slow = getattr(layers, name), getattr(reference, name)
    assert inspect.signature(fast) == inspect.signature(slow)


def _config():
  """Returns a network with every function, and a stem that drops a row."""
  config = tiny.get_config('')
  config.data.update({'image_size': 48, 'crop_size': 48, 'color_noise': 'none'})
  model = config.model
  model.dtype, model.omit = 'float64', 'conv5,fc7'
  model.conv4.kind = 'local'
  model.conv1.update({'kernel': 7, 'stride': 3, 'padding': (0, 2)})
  model.conv2.after = ('act', 'lrn', 'spatial_norm', 'avg_pool')
  config.optimizer.learning_rate = 0.03
  model.lrn.alpha = 0.1  # sums that matter
  model.spatial_norm.scale = 1.0
  return config


def test_losses_with_formulas_and_with_fast_functions():
  config = _config()
  functions = {name: mock.Mock(wraps=vars(reference)[name]) for name in NAMES}
  with jax.enable_x64():
    state = train_step.create_train_state(config)
    numbers = {
      field: jax.tree.map(np.float64, getattr(state, field))
      for field in ('params', 'opt_state', 'metric_sums')
    }
    state = state.replace(**numbers)
    fast = in_memory.Training(config, state).losses(50)
    with mock.patch.multiple(layers, **functions):
      slow = in_memory.Training(config, state).losses(50)
  assert all(function.called for function in functions.values())
  assert slow[-10:].mean() < 0.9 * slow[:10].mean()
  # Measured: 7e-16. Fifty steps that each add two roundings stay below
  # 50 * 2 * 2^-53 = 1.1e-14.
  np.testing.assert_allclose(fast, slow, rtol=2e-14)
