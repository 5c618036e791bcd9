"""Convolutions in their forms for CPUs equal flax's, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import convolution


@pytest.mark.parametrize(
  'side, kernel, stride, padding, depthwise',
  [
    (6, 3, 2, 1, False),
    (6, 3, 2, 'SAME', False),
    (2, 3, 1, 1, False),  # a kernel larger than the map
    (8, 5, 2, 'SAME', True),
    (7, 3, 1, 1, True),
  ],
)
def test_convolutions_equal_flax_s(side, kernel, stride, padding, depthwise):
  channels = 4
  images = np.random.default_rng(0).normal(size=(3, side, side, channels))
  options = {'dtype': 'float64', 'bias_init': nn.initializers.ones}
  ours = convolution.Conv(4, kernel, stride, padding, depthwise, **options)
  groups = channels if depthwise else 1
  theirs = nn.Conv(
    4, (kernel, kernel), stride, padding, feature_group_count=groups, **options
  )

  def run(layer, variables):
    y, pull_back = jax.vjp(layer.apply, variables, images)
    return y, pull_back(jnp.cos(y))

  with jax.enable_x64(True):
    variables = theirs.init(jax.random.key(0), images)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
      *(jax.jit(run, static_argnums=0)(x, variables) for x in (ours, theirs)),
    )
