"""model.dtype='bfloat16': products in bfloat16, all that adds up in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import train_step
from alexnet_jax.models import layers
from tests import in_memory, reference, tiny

# The relative error of one rounding to 8 bits.
UNIT = 2.0**-8


def _config(dtype='bfloat16'):
  config = tiny.get_config('')
  config.model.dtype, config.model.omit = dtype, 'conv3,conv4'
  return config


def test_state_and_gradients_are_float32():
  config = _config()
  run, given = in_memory.run_of(config), []
  sum_gradients = run.plan.sum_gradients
  run.plan.sum_gradients = lambda *args: (
    given.append(args[0]) or sum_gradients(*args)
  )
  state = train_step.abstract_train_state(config)
  batch = in_memory.batch_of(config, 0)
  scale = np.float32(1)
  after, sums = jax.eval_shape(run.train_program, state, batch, scale)
  float32 = _config('float32')
  expected = train_step.abstract_train_state(float32)
  for actual in (state, after):
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
      assert (a.shape, a.dtype) == (b.shape, b.dtype)
  for leaf in jax.tree.leaves([given, sums]):
    assert leaf.dtype == np.float32
  assert len(given) == 1


def _outputs(dtype):
  """Logits and what the layers have sown, in training."""
  config = _config(dtype)
  state = train_step.abstract_train_state(config)
  # With biases of 9 every unit that dropout keeps is above zero.
  params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full(leaf.shape, 9 * (path[1].key == 'bias'), 'f'),
    state.params,
  )
  apply = functools.partial(
    train_step.create_model(config).apply,
    train=True,
    capture_intermediates=True,
    mutable='intermediates',
  )
  logits, sown = jax.jit(apply)(
    {'params': params},
    jnp.zeros((4, 28, 28, 3)),
    jnp.arange(4, dtype=jnp.uint32),
    rngs={'dropout': jax.random.key(0)},
  )
  del sown['intermediates']['__call__']  # the logits
  return logits, sown['intermediates']


def test_activations_are_bfloat16_and_logits_and_masks_are_float32_s():
  logits, outputs = _outputs('bfloat16')
  assert logits.dtype == np.float32
  head = ('fc8', 'fc8_output')
  hidden = {k: v for k, v in outputs.items() if k not in head}
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(hidden)}
  assert dtypes == {jnp.dtype('bfloat16')}
  _, expected = _outputs('float32')
  for layer in ('fc6_output', 'fc7_output'):
    masks = [np.stack(x[layer][0]) > 0 for x in (outputs, expected)]
    assert 0.3 < masks[0].mean() < 0.7
    np.testing.assert_array_equal(*masks)


def test_logits_are_not_rounded():
  config = _config()
  state = train_step.create_train_state(config)
  images = 64 * np.random.default_rng(0).standard_normal((64, 28, 28, 3))
  apply = jax.jit(train_step.create_model(config).apply)
  logits = np.asarray(apply({'params': state.params}, jnp.float32(images)))
  rounded = logits.astype(jnp.bfloat16).astype(np.float32)
  assert (logits != rounded).mean() > 0.9


SUMS = [
  ('local_response_norm', {'n': 9, 'k': 2.0, 'alpha': 0.1, 'beta': 0.75}, []),
  ('local_response_norm', {'n': 5, 'k': 1.0, 'alpha': 0.3, 'beta': 0.5}, []),
  (
    'spatial_response_norm',
    {'size': 5, 'k': 1.0, 'scale': 2.0, 'beta': 0.75},
    [],
  ),
  ('pool', {'kind': 'avg', 'size': 3, 'stride': 2, 'ceil': True}, []),
  ('add_bias', {}, [(16,)]),
]


@pytest.mark.parametrize('name, settings, more', SUMS)
def test_norms_and_means_round_only_their_results(name, settings, more):
  rng = np.random.default_rng(0)
  arrays = [
    jnp.asarray(3 * rng.standard_normal(shape), jnp.bfloat16)
    for shape in [(2, 8, 8, 16), *more]
  ]

  def value_and_gradient(module, *arrays):
    function = functools.partial(getattr(module, name), **settings)
    value, transpose = jax.vjp(function, *arrays)
    cotangent = jnp.cos(jnp.arange(value.size)).astype(jnp.bfloat16)
    cotangent = cotangent.astype(value.dtype).reshape(value.shape)
    return value, *transpose(cotangent)

  evaluate = jax.jit(value_and_gradient, static_argnums=0)
  actual = evaluate(layers, *arrays)
  with jax.enable_x64(True):
    expected = evaluate(reference, *(x.astype(jnp.float64) for x in arrays))
  for a, b in zip(actual, expected, strict=True):
    assert a.dtype == jnp.bfloat16
    a, b = np.float64(a), np.float64(b)
    # And float32's own, where a gradient is a small difference.
    assert (np.abs(a - b) <= UNIT * np.abs(b) + 1e-6 * np.abs(b).max()).all()


def test_losses_stay_close_to_those_of_float32():
  config = _config('float32')
  config.data.color_noise, config.model.omit = 'none', 'conv3,conv4,conv5,fc7'
  state = train_step.create_train_state(config)
  expected = in_memory.Training(config, state).losses(20)
  config.model.dtype = 'bfloat16'
  losses = in_memory.Training(config, state).losses(20)
  assert losses[-5:].mean() < 0.7 * losses[:5].mean()
  # Roundings differ in sign from unit to unit: their mean is below one of them,
  np.testing.assert_allclose(losses[0], expected[0], rtol=UNIT)
  # and the weights' later on below one in each of the four layers.
  np.testing.assert_allclose(losses, expected, rtol=4 * UNIT)
