"""Norms, pools and tower-wise layers, against loops written from formulas."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import layers
from tests import reference as plain

FORWARD = {'float64': 1e-6, 'float32': 1e-5}
GRADIENT = {'float64': 1e-6, 'float32': 1e-4}


def relative_error(actual, expected):
  actual = np.asarray(actual, np.float64)
  assert actual.shape == expected.shape
  return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def window(center, size, length):
  """`size` places around `center`, one more below for even sizes (CC1)."""
  first = center - size // 2
  return slice(max(0, first), min(length, first + size))


def channel_norm(x, n, k, alpha, beta):
  """Paper section 3.3."""
  y = np.zeros_like(x)
  for i in range(x.shape[3]):
    squares = x[..., window(i, n, x.shape[3])] ** 2
    y[..., i] = x[..., i] / (k + alpha * squares.sum(-1)) ** beta
  return y


def map_norm(x, size, k, scale, beta):
  """CC1's rnorm: the same map's size x size neighbours."""
  y = np.zeros_like(x)
  for i, j in np.ndindex(x.shape[1:3]):
    rows, columns = window(i, size, x.shape[1]), window(j, size, x.shape[2])
    squares = (x[:, rows, columns] ** 2).sum((1, 2))
    y[:, i, j] = x[:, i, j] / (k + scale / size**2 * squares) ** beta
  return y


def pooled(x, kind, size, stride, ceil):
  """Windows clipped at the edge; averages over what is left (CC1)."""
  rounded = math.ceil if ceil else math.floor
  rows, columns = (rounded((n - size) / stride) + 1 for n in x.shape[1:3])
  y = np.zeros((x.shape[0], rows, columns, x.shape[3]))
  for i, j in np.ndindex(rows, columns):
    top, left = i * stride, j * stride
    cells = x[:, top : top + size, left : left + size]
    y[:, i, j] = cells.max((1, 2)) if kind == 'max' else cells.mean((1, 2))
  return y


def numeric_gradient(function, x, cotangent):
  """Central differences of sum(function(x) * cotangent)."""
  gradient, step = np.zeros_like(x), 1e-5
  for place in np.ndindex(x.shape):
    nudge = np.zeros_like(x)
    nudge[place] = step
    change = function(x + nudge) - function(x - nudge)
    gradient[place] = (change * cotangent).sum() / (2 * step)
  return gradient


def convolved(x, kernel, stride, padding):
  """[N, H, W, C] by [k, k, C, F]."""
  x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
  places = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
  places = places[:, ::stride, ::stride]  # [N, H', W', C, k, k]
  return np.einsum('nhwcij,ijcf->nhwf', places, kernel)


def value_and_gradients(function, arrays, cotangent, dtype):
  def both(arrays, cotangent):
    value, transpose = jax.vjp(function, *arrays)
    return value, transpose(cotangent)

  with jax.enable_x64(dtype == 'float64'):
    arrays = [jnp.asarray(array, dtype) for array in arrays]
    results = jax.jit(both)(arrays, jnp.asarray(cotangent, dtype))
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(results))
  return results


def distinct_values(shape, rng):
  """From -2 to 2, far enough apart to nudge one without a new maximum."""
  return np.linspace(-2, 2, math.prod(shape))[
    rng.permutation(math.prod(shape))
  ].reshape(shape)


NORMS = [
  ('local_response_norm', channel_norm, settings)
  for settings in (
    {'n': 5, 'k': 2.0, 'alpha': 0.1, 'beta': 0.75},
    {'n': 5, 'k': 1.0, 'alpha': 0.3, 'beta': 0.5},
    {'n': 4, 'k': 1.5, 'alpha': 0.2, 'beta': 0.75},
    {'n': 9, 'k': 2.0, 'alpha': 1e-4, 'beta': 0.75},  # more than channels
  )
] + [
  ('spatial_response_norm', map_norm, settings)
  for settings in (
    {'size': 5, 'k': 1.0, 'scale': 2.0, 'beta': 0.75},
    {'size': 3, 'k': 2.0, 'scale': 1.0, 'beta': 1.25},
    {'size': 4, 'k': 1.0, 'scale': 3.0, 'beta': 0.75},
  )
]
POOLS = [
  ('pool', pooled, {'kind': kind, **geometry})
  for kind in ('max', 'avg')
  for geometry in (
    {'size': 3, 'stride': 2, 'ceil': False},
    {'size': 3, 'stride': 2, 'ceil': True},
    {'size': 2, 'stride': 2, 'ceil': False},
    {'size': 2, 'stride': 2, 'ceil': True},
    {'size': 3, 'stride': 3, 'ceil': False},  # drops two columns
    {'size': 2, 'stride': 3, 'ceil': False},  # and cells between windows
  )
]


def check(functions, reference, arrays, rng):
  """Values and gradients of `functions` by the reference's differences."""
  value = reference(*arrays)
  cotangent = rng.standard_normal(value.shape)
  gradients = [
    numeric_gradient(
      lambda x: reference(*arrays[:i], x, *arrays[i + 1 :]), array, cotangent
    )
    for i, array in enumerate(arrays)
  ]
  for function, dtype in itertools.product(functions, FORWARD):
    results = value_and_gradients(function, arrays, cotangent, dtype)
    assert relative_error(results[0], value) <= FORWARD[dtype]
    for actual, expected in zip(results[1], gradients, strict=True):
      assert relative_error(actual, expected) <= GRADIENT[dtype]


@pytest.mark.parametrize('name, reference, settings', NORMS + POOLS)
def test_forward_and_gradient(name, reference, settings):
  rng = np.random.default_rng(0)
  x = distinct_values((1, 7, 8, 6), rng)  # 3/2 fits 7 exactly, and not 8
  functions = [
    functools.partial(getattr(module, name), **settings)
    for module in (layers, plain)
  ]
  check(functions, functools.partial(reference, **settings), (x,), rng)


CONVOLUTIONS = [  # shared input, kernel, stride, padding, channels
  (True, 3, 1, (1, 1), 3),
  (False, 2, 1, (0, 1), 2),  # zeros on one side alone
  (True, 5, 4, (0, 3), 3),  # drops a row and no column
  (False, 5, 2, (1, 2), 3),
  (False, 2, 3, (1, 2), 2),  # cells between windows
  (False, 3, 2, (1, 0), 8),  # channels enough as they are
]


@pytest.mark.parametrize(
  'shared, kernel, stride, padding, channels', CONVOLUTIONS
)
def test_convolutions_of_towers(shared, kernel, stride, padding, channels):
  rng = np.random.default_rng(0)
  own = () if shared else (2,)
  x = rng.standard_normal((*own, 1, 7, 6, channels))
  kernels = rng.standard_normal((2, kernel, kernel, channels, 2))

  def towers_of(x):
    return [x] * 2 if shared else list(x)

  def function(convolve_towers, x, kernels):
    outputs = convolve_towers(towers_of(x), kernels, stride, padding)
    return jnp.stack(outputs)

  def reference(x, kernels):
    pairs = zip(towers_of(x), kernels, strict=True)
    return np.stack([convolved(x, k, stride, padding) for x, k in pairs])

  functions = [
    functools.partial(function, module.convolve_towers)
    for module in (layers, plain)
  ]
  check(functions, reference, (x, kernels), rng)


def test_products_of_towers():
  rng = np.random.default_rng(0)
  x, kernels = rng.standard_normal((2, 3, 7)), rng.standard_normal((2, 7, 4))

  def function(multiply_towers, x, kernels):
    return jnp.stack(multiply_towers(list(x), kernels))

  functions = [
    functools.partial(function, module.multiply_towers)
    for module in (layers, plain)
  ]
  reference = functools.partial(np.einsum, 'tnc,tcf->tnf')
  check(functions, reference, (x, kernels), rng)


@pytest.mark.parametrize(
  'image, expected',
  [
    (np.ones((5, 5)), {(0, 0): 1.0, (0, 2): 2.0, (2, 0): 3.0, (2, 2): 4.0}),
    # By columns, (1, 0) would come first; the last one is (2, 2).
    (np.array([[0, 1, 1], [1, 0, 0], [1, 0, 1]]), {(0, 1): 1.0}),
  ],
)
def test_ties_give_the_gradient_to_the_first_in_row_order(image, expected):
  pool = functools.partial(
    layers.pool, kind='max', size=3, stride=2, ceil=False
  )
  cotangent = np.arange(1.0, 1 + len(expected))
  side = math.isqrt(len(expected))
  x, cotangent = image[None, ..., None], cotangent.reshape(1, side, side, 1)
  _, [gradient] = value_and_gradients(pool, [x], cotangent, 'float32')
  dense = np.zeros(image.shape)
  for place, share in expected.items():
    dense[place] = share
  np.testing.assert_array_equal(gradient[0, ..., 0], dense)


LOCAL = layers.TowerLocal(
  features=4,
  kernel=3,
  stride=2,
  padding=(1, 0),
  kernel_init=jax.nn.initializers.normal(),
  bias_init=jax.nn.initializers.zeros,
)


def untied_convolution(towers, kernels, biases):
  """Position by position; a patch runs over channels, rows, columns."""
  y = np.zeros((2, 2, 3, 2, 4))  # [T, N, H', W', features]
  for t, n, i, j in np.ndindex(y.shape[:4]):
    padded = np.pad(towers[t, n], ((1, 0), (1, 0), (0, 0)))
    patch = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
    channel_by_channel = [patch[..., c].ravel() for c in range(2)]
    inputs = np.concatenate(channel_by_channel)
    y[t, n, i, j] = inputs @ kernels[t, i, j] + biases[t, i, j]
  return y


@pytest.mark.parametrize('dtype', FORWARD)
def test_local_layer_has_weights_and_bias_at_each_position(dtype):
  rng = np.random.default_rng(0)
  towers = rng.standard_normal((2, 2, 6, 5, 2))  # [T, N, H, W, C]
  kernels = rng.standard_normal((2, 3, 2, 2 * 3 * 3, 4))
  biases = rng.standard_normal((2, 3, 2, 4))
  with jax.enable_x64(dtype == 'float64'):
    params = {'kernel': kernels, 'bias': biases}
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
    local = [jnp.asarray(x, dtype) for x in towers]
    outputs = np.stack(LOCAL.apply({'params': params}, local))
  assert outputs.dtype == dtype
  expected = untied_convolution(towers, kernels, biases)
  assert relative_error(outputs, expected) <= FORWARD[dtype]


def test_local_layer_starts_with_the_stated_shapes():
  towers = [jnp.zeros((2, 6, 5, 2))] * 2
  params = jax.eval_shape(LOCAL.init, jax.random.key(0), towers)['params']
  assert params['kernel'].shape == (2, 3, 2, 18, 4)
  assert params['bias'].shape == (2, 3, 2, 4)


KEEP = 0.3  # not a half, so that kept and dropped cannot be confused


def masks(index, tower_ids, width=1000, inverted=False):
  """What training's dropout makes of threes, [T, N, width]."""
  towers = [jnp.full((len(index), width), 3.0)] * len(tower_ids)
  outputs = layers.TowerDropout(KEEP, inverted).apply(
    {},
    towers,
    tower_ids,
    jnp.asarray(index, jnp.uint32),
    True,
    rngs={'dropout': jax.random.key(7)},
  )
  return np.stack(outputs)


def test_training_mask_is_zero_or_one():
  outputs = masks(range(32), [0, 1])
  assert set(np.unique(outputs)) == {0.0, 3.0}  # an inverted one gives 10
  deviation = math.sqrt(KEEP * (1 - KEEP) / outputs.size)
  assert abs((outputs == 3).mean() - KEEP) < 5 * deviation


def test_inverted_dropout_divides_by_keep_in_training_alone():
  outputs = masks(range(32), [0, 1], inverted=True)
  np.testing.assert_allclose(np.unique(outputs), [0, 10], rtol=1e-6)
  np.testing.assert_array_equal(outputs > 0, masks(range(32), [0, 1]) > 0)
  x = [jnp.ones((2, 3))]
  dropout = layers.TowerDropout(KEEP, inverted=True)
  (y,) = dropout.apply({}, x, [0], None, False)
  np.testing.assert_array_equal(y, x[0])


def test_evaluation_multiplies_by_keep():
  x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
  outputs = layers.TowerDropout(KEEP).apply({}, list(x), [0, 1], None, False)
  np.testing.assert_array_equal(np.stack(outputs), x * np.float32(KEEP))


def test_mask_belongs_to_example_and_tower_and_not_to_position():
  first = masks([5, 9, 10**6, 2**32 - 1], [0, 1])
  order = [2, 0]
  again = masks([10**6, 5], [1, 0])
  np.testing.assert_array_equal(again, first[::-1][:, order])
  np.testing.assert_array_equal(masks([9], [1])[0, 0], first[1, 1])
  rows = first.reshape(-1, first.shape[-1])
  assert len(np.unique(rows, axis=0)) == len(rows)  # no two alike
