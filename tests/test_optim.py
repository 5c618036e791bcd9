"""The update rule against a plain loop, and the schedules' exact steps."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import errors, optim, train_step
from alexnet_jax.run import count_steps
from configs import (
  alexnet,
  alexnet_2012,
  alexnet_bn,
  alexnet_today,
  bvlc_alexnet,
  cifar10,
  cnn_star,
  cnn_star_2009,
  cnn_star_pretrain,
)

TOLERANCE = {'float64': 1e-6, 'float32': 1e-5}
IMAGENET = 1281167
STEPS = 7


def reference_path(weight, rates, decay, *gradients):
  """Section 5's rule; a rate of 0 leaves weight and velocity alone (CHM)."""
  velocity, path = np.zeros_like(weight), []
  for gradient, rate in zip(gradients, rates, strict=True):
    if rate > 0:
      velocity = 0.9 * velocity - decay * rate * weight - rate * gradient
      weight = weight + velocity
    path.append(weight)
  return np.stack(path)


def project_path(rule, rates_fn, params, gradients):
  """Params after each step, stacked."""
  state, path = rule.init(params), []
  for step, gradient in enumerate(gradients):
    rates = rates_fn(step, params)
    updates, state = rule.update(gradient, state, params, rates=rates)
    params = optax.apply_updates(params, updates)
    path.append(params)
  return jax.tree.map(lambda *x: np.stack(x), *path)


def random_trees(like):
  """Params, and a gradient for each step."""
  rng = np.random.default_rng(0)
  draw = functools.partial(jax.tree.map, lambda _: rng.standard_normal((3, 2)))
  return draw(like), [draw(like) for _ in range(STEPS)]


def check_against_loop(rule, rates_fn, rates, decays, dtype):
  """`rates` has all steps' rates of each parameter, in an array."""
  params, gradients = random_trees(decays)
  expected = jax.tree.map(reference_path, params, rates, decays, *gradients)
  with jax.enable_x64(dtype == 'float64'):
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    actual = project_path(rule, rates_fn, cast(params), cast(gradients))

  def check(a, b):
    assert a.dtype == dtype
    assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(b).max()

  jax.tree.map(check, actual, expected)
  return actual


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_rule_with_drops_and_frozen_steps(dtype):
  rates = {
    # The velocity of three large steps must live on after the drop.
    'dropped': np.array([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]),
    # Goes on with the velocity that it had.
    'frozen': np.array([0.1, 0.1, 0.0, 0.0, 0.05, 0.05, 0.05]),
    'late': np.array([0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1]),
  }
  decays = {'dropped': 0.3, 'frozen': 0.5, 'late': 0.0}
  path = check_against_loop(
    optim.update_rule(0.9, decays),
    lambda step, _: jax.tree.map(lambda rate: rate[step], rates),
    rates,
    decays,
    dtype,
  )
  np.testing.assert_array_equal(path['frozen'][1], path['frozen'][3])


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_config_gives_each_layer_its_rate_and_decay(dtype):
  config = cifar10.get_config()
  config.optimizer.rate_multipliers.conv2 = 3.0
  config.schedule.drops = ((1, 0.1),)
  decays = {  # fc10's is 250 times as large; biases have none
    'conv1': {'kernel': 0.004, 'bias': 0.0},
    'conv2': {'kernel': 0.004, 'bias': 0.0},
    'fc10': {'kernel': 1.0, 'bias': 0.0},
  }
  weight = 0.001 * np.array([1, 1, 1, 1, 0.1, 0.1, 0.1])
  bias = 0.002 * np.ones(STEPS)  # twice the rate, and no drop
  rates = {
    'conv1': {'kernel': weight, 'bias': bias},
    'conv2': {'kernel': 3 * weight, 'bias': 3 * bias},
    'fc10': {'kernel': weight, 'bias': bias},
  }
  rates_fn = optim.create_learning_rate_fn(
    config, lambda epochs: 4 * epochs, STEPS
  )
  check_against_loop(
    train_step.create_optimizer(config, decays),
    lambda step, params: rates_fn(step, 1.0, params),
    rates,
    decays,
    dtype,
  )


def rate(config, step, layer, kind='kernel', num_steps=1000, scale=1.0):
  """One parameter's rate, with ImageNet's epochs in batches of 128."""
  from_epochs = functools.partial(
    optim.epochs_to_steps, num_examples=IMAGENET, batch_size=128
  )
  rates_fn = optim.create_learning_rate_fn(config, from_epochs, num_steps)
  params = {layer: {'kernel': 0.0, 'bias': 0.0}}
  return float(rates_fn(jnp.int32(step), scale, params)[layer][kind])


@pytest.mark.parametrize(
  'layer, epoch, before, after',
  [
    ('conv2', 25, 1e-2, 1e-3),
    ('conv2', 51, 1e-3, 1e-4),
    ('conv2', 79, 1e-4, 1e-5),
    ('conv1', 51, 1e-3, 1e-4),
    ('conv1', 67, 1e-4, 1e-5),
    ('conv1', 72, 1e-5, 0),  # frozen: exactly 0
  ],
)
def test_epochs_schedule_drops_at_the_source_s_steps(
  layer, epoch, before, after
):
  config = alexnet_2012.get_config()  # CHM's notes on net #145
  step = -(-epoch * IMAGENET // 128)
  assert rate(config, step - 1, layer) == pytest.approx(before, rel=1e-6)
  assert rate(config, step, layer) == pytest.approx(after, rel=1e-6, abs=0)
  assert rate(config, step, 'fc8', 'bias') == pytest.approx(0.02, rel=1e-6)


CNN_STAR = [  # CHM layer-params-146-2012-2011.cfg; None: at the start
  ('conv1', None, None, 1e-4),
  ('conv1', 5, 1e-4, 1e-5),
  ('conv1', 7, 1e-5, 0),
  ('conv2', None, None, 1e-3),
  ('conv6', 22, 1e-3, 1e-4),
  ('fc7', 42, 1e-4, 1e-5),
  ('fc8', None, None, 1e-3),
  ('fc8', 300 * 128 / IMAGENET, 1e-3, 1e-2),
  ('fc8', 9, 1e-2, 1e-3),
  ('fc8', 22, 1e-3, 1e-4),
]


@pytest.mark.parametrize('layer, epoch, before, after', CNN_STAR)
def test_cnn_star_has_the_published_rates(layer, epoch, before, after):
  config = cnn_star.get_config()
  step = math.ceil((epoch or 0) * IMAGENET / 128 - 1e-6)
  if epoch is not None:
    assert rate(config, step - 1, layer) == pytest.approx(before, rel=1e-5)
  assert rate(config, step, layer) == pytest.approx(after, rel=1e-5, abs=0)
  bias = 0 if (layer, after) == ('conv1', 0) else 0.02
  assert rate(config, step, layer, 'bias') == pytest.approx(bias, rel=1e-5)


@pytest.mark.parametrize(
  'config, epoch, convolutions',
  [
    (cnn_star_2009, 2.16, ('conv1', 'conv5')),
    (cnn_star_pretrain, 6, ('conv1', 'conv5', 'conv6')),
  ],
)
def test_pretraining_has_the_published_rates(config, epoch, convolutions):
  config = config.get_config()  # CHM layer-params-146-2009, -2011.cfg
  last = math.ceil(epoch * IMAGENET / 128)
  for step, dense in ((0, 0.01), (last - 1, 0.01), (last, 0.001)):
    for layer in config.model.layers:
      known = layer in convolutions or layer.startswith('fc')
      expected = 0.001 if layer in convolutions else dense
      if known:
        assert rate(config, step, layer) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
  'step, weights, biases',
  [
    (0, 0, 1),
    (250, 0, 1),
    (251, 1, 1),  # 250.5 is a quarter
    (500, 1, 1),
    (501, 2, 0.1),
    (751, 2, 0.1),
    (752, 3, 0.1),
    (1001, 3, 0.1),
  ],
)
def test_four_levels_fall_at_the_quarters(step, weights, biases):
  config = alexnet.get_config()
  config.schedule.update({'name': 'dexp', 'total_factor': 250.0, 'levels': 4})
  config.schedule.biases.update({'name': 'dexp', 'total_factor': 10.0})
  config.train_steps = 1002
  rates = [
    rate(config, step, 'conv2', kind, num_steps=1002)
    for kind in ('kernel', 'bias')
  ]
  factors = [250 ** (-weights / 3), biases]
  assert rates == pytest.approx([0.01 * f for f in factors], rel=1e-6)


def published_factor(form, p, factor, levels):
  """CHM src/lr.cu, as notebook formulas: the factor of the first rate."""
  if form == 'linear':
    return (1 - p) + p / factor
  if form == 'exp':
    return factor**-p
  of_level = [factor ** (-i / (levels - 1)) for i in range(levels)]
  level = next(i for i in range(levels) if p <= (i + 1) / levels)
  is_second_half = p > (level + 0.5) / levels
  if form == 'jdexp' and level > 0 and is_second_half and 0.2 < p < 0.9:
    return math.sqrt(of_level[level] * of_level[level - 1])
  return of_level[level]


@pytest.mark.parametrize('factor, levels', [(250.0, 4), (1000.0, 3), (10.0, 2)])
@pytest.mark.parametrize('form', ['linear', 'exp', 'dexp', 'jdexp'])
def test_forms_are_the_sources(form, factor, levels):
  config = alexnet.get_config()
  config.schedule.update(
    {'name': form, 'total_factor': factor, 'levels': levels}
  )
  # One drop on top, after which biases and weights differ by it.
  config.schedule.drops = ((0.1, 0.5),)
  config.schedule.biases.name = form
  config.schedule.biases.update({'total_factor': factor, 'levels': levels})
  total, dropped = 2003, 1001  # a prime: p is no border of a level
  config.train_steps = total
  from_epochs = functools.partial(
    optim.epochs_to_steps, num_examples=IMAGENET, batch_size=128
  )
  rates = optim.create_learning_rate_fn(config, from_epochs, total)
  params = {'conv2': {'kernel': 0.0, 'bias': 0.0}}
  steps = jnp.arange(total)
  of_conv2 = jax.vmap(lambda step: rates(step, 1.0, params))(steps)['conv2']
  expected = np.array(
    [published_factor(form, p, factor, levels) for p in steps / total]
  )
  np.testing.assert_allclose(of_conv2['bias'], 0.01 * expected, rtol=1e-5)
  expected[dropped:] /= 2
  np.testing.assert_allclose(of_conv2['kernel'], 0.01 * expected, rtol=1e-5)


@pytest.mark.parametrize(
  'form, factor',
  [
    ('cosine', lambda p: (1 + math.cos(math.pi * p)) / 2),
    ('poly', lambda p: (1 - p) ** 0.75),
    ('inverse', lambda p: (1 + p) ** -0.75),
  ],
)
def test_forms_of_later_recipes(form, factor):
  config = alexnet.get_config()
  config.schedule.update({'name': form, 'power': 0.75})
  rates = optim.create_learning_rate_fn(config, lambda epochs: 0, 1000)
  for step in (0, 1, 250, 999):
    found = rates(step, 1.0, {'conv1': {'kernel': 0.0}})['conv1']['kernel']
    # 1e-9 is a rounding error of the first rate in float32.
    expected = pytest.approx(0.01 * factor(step / 1000), rel=1e-5, abs=1e-9)
    assert float(found) == expected


def test_a_warm_up_comes_before_a_form_that_is_not_moved():
  # NVCaffe's solver_8K: 1 to 10 in 600 of 15,600 steps, then poly(2), which is
  # at .925 of the first rate by then (NVL solver_8K).
  config = alexnet.get_config()
  config.optimizer.update({'learning_rate': 10.0, 'bias_rate_multiplier': 2.0})
  config.schedule.update({'name': 'poly', 'power': 2.0})
  config.schedule.update({'warmup_epochs': 6.0, 'warmup_start': 0.1})
  rates = optim.create_learning_rate_fn(
    config, lambda epochs: int(100 * epochs), 15600
  )
  expected = {0: 1, 1: 1 + 9 / 600, 300: 5.5, 599: 1 + 9 * 599 / 600}
  expected |= {s: 10 * (1 - s / 15600) ** 2 for s in (600, 601, 8000)}
  for step, rate in expected.items():
    found = rates(step, 1.0, {'conv1': {'kernel': 0.0, 'bias': 0.0}})['conv1']
    assert float(found['kernel']) == pytest.approx(rate, rel=1e-5)
    assert float(found['bias']) == pytest.approx(2 * rate, rel=1e-5)


@pytest.mark.parametrize('nesterov', [False, True])
def test_the_rate_outside_of_the_velocity_is_pytorchs_rule(nesterov):
  torch = pytest.importorskip('torch')
  like = {'stage1': {'block1': {'conv1': {'kernel': 0, 'scale': 0}}}}
  params, gradients = random_trees(like)
  rule = optim.update_rule(
    0.9,
    jax.tree.map(lambda _: 0.01, like),
    nesterov=nesterov,
    rate_inside=False,
  )
  steps = jnp.array([0.1, 0.1, 0.02, 0.02, 0.02, 0.3, 0.1])  # rates change
  path = project_path(
    rule, lambda i, _: jax.tree.map(lambda _: steps[i], like), params, gradients
  )
  leaves = [
    torch.tensor(x, requires_grad=True) for x in jax.tree.leaves(params)
  ]
  theirs = torch.optim.SGD(
    leaves, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov
  )
  for number, gradient in enumerate(gradients):
    theirs.param_groups[0]['lr'] = float(steps[number])
    for leaf, g in zip(leaves, jax.tree.leaves(gradient), strict=True):
      leaf.grad = torch.from_numpy(g)
    theirs.step()
    for leaf, ours in zip(leaves, jax.tree.leaves(path), strict=True):
      np.testing.assert_allclose(ours[number], leaf.detach(), rtol=1e-5)


def test_decay_and_rates_are_addressed_by_path():
  config = alexnet.get_config()
  params = {'stage1': {'conv': {'kernel': 0.0}, 'bn': {'scale': 0.0}}}
  decay = functools.partial(optim.decay_tree, params)
  assert decay(config.optimizer)['stage1']['bn']['scale'] == 0
  config.optimizer.decay_biases = True
  config.optimizer.decay_multipliers['stage1/bn'] = 3.0
  found = decay(config.optimizer)['stage1']
  assert found['conv']['kernel'] == pytest.approx(0.0005)
  assert found['bn']['scale'] == pytest.approx(0.0015)


def test_plateau_scales_every_rate():
  config = alexnet.get_config()
  for kind in ('kernel', 'bias'):
    scaled = rate(config, 10**6, 'conv2', kind, scale=0.1)
    assert scaled == pytest.approx(0.001, rel=1e-6)


def test_plateau_drops_three_times_and_ends():
  # Errors with min_delta .25 and patience 2, and what each leaves behind.
  history = [
    (0.75, (1.0, 0, 0)),  # not below chance - .25, which nothing has been
    (0.75, (1.0, 0, 0)),
    (0.75, (1.0, 0, 0)),
    (0.5, (0.5, 0, 0)),
    (0.375, (0.5, 1, 0)),  # better, but not by enough
    (0.375, (0.5, 0, 1)),
    (0.125, (0.125, 0, 1)),
    (0.5, (0.125, 1, 1)),
    (0.5, (0.125, 0, 2)),
    (0.5, (0.125, 1, 2)),
    (0.5, (0.125, 0, 3)),
    (0.5, (0.125, 1, 3)),
    (0.5, (0.125, 0, 4)),
  ]
  plateau = optim.Plateau()
  for error, (best, waited, drops) in history:
    assert not plateau.is_over
    plateau = plateau.after(error, min_delta=0.25, patience=2, chance=0.9)
    assert plateau == optim.Plateau(best, waited, drops)
    assert plateau.scale == pytest.approx(10.0**-drops)
  assert plateau.is_over


def test_a_network_at_chance_never_ends_on_a_plateau():
  plateau = optim.Plateau()
  for _ in range(100):  # of 1,000 classes, alike frequent
    plateau = plateau.after(0.999, min_delta=0.001, patience=3, chance=0.999)
    assert plateau.is_at_chance(0.999)
  assert plateau.scale == 1 and not plateau.is_over
  plateau = plateau.after(0.9, min_delta=0.001, patience=3, chance=0.999)
  assert not plateau.is_at_chance(0.999)


@pytest.mark.parametrize(
  'epochs, num_examples, batch_size, steps',
  [
    (0.1, IMAGENET, 128, 1001),  # 1000.9
    (90.0, IMAGENET, 128, 900821),  # 900820.5
    (1.0, 50000, 100, 500),
    (1.1, 50000, 100, 550),  # in floats, ceil gives 551
    (0.1, 1000, 128, 1),
    (1e-5, 50000, 100, 1),
  ],
)
def test_epochs_become_steps_in_integers(
  epochs, num_examples, batch_size, steps
):
  assert optim.epochs_to_steps(epochs, num_examples, batch_size) == steps


@pytest.mark.parametrize(
  'batch, rate, warm_up, steps',  # NVCaffe's solver files
  [
    ('512', 0.08, 0, 250_000),
    ('8192', 10.0, 600, 15_600),
    ('16384', 24.0, 400, 7_800),
    ('32768', 32.0, 400, 4_000),
  ],
)
def test_alexnet_bn_has_the_solver_files_steps(batch, rate, warm_up, steps):
  config = alexnet_bn.get_config(f'{batch}:cifar10')
  assert config.data.name == 'cifar10'
  assert config.batch_size // config.accumulate_steps <= 8192
  schedule, first = config.schedule, config.optimizer.learning_rate
  found = [
    optim.epochs_to_steps(epochs, IMAGENET, config.batch_size)
    for epochs in (schedule.warmup_epochs, config.num_epochs)
  ]
  assert (first, found) == (rate, [warm_up, steps])
  assert schedule.warmup_start * first == pytest.approx(1 if warm_up else 0)
  assert config.optimizer.lars_eta == (0.001 if warm_up else 0)


def test_alexnet_bn_takes_a_published_batch_or_data():
  assert alexnet_bn.get_config().data.name == 'imagenet2012'
  assert alexnet_bn.get_config('shapes').data.name == 'shapes'
  with pytest.raises(errors.UserError, match='alexnet_bn.py:4096 is no batch'):
    alexnet_bn.get_config('4096:cifar10')


def test_caffes_rate_drops_every_100000_steps():
  config = bvlc_alexnet.get_config()
  epochs = [epoch for epoch, _ in config.schedule.drops]
  steps = [
    optim.epochs_to_steps(epoch, IMAGENET, config.batch_size)
    for epoch in (*epochs, config.num_epochs)
  ]
  assert steps == [100_000, 200_000, 300_000, 400_000, 450_000]


@pytest.mark.parametrize(
  'pictures, total, epoch',
  [(60, 1500, 50), (9469, 2220, 74), (50_000, 11_719, 391)],
)
def test_alexnet_today_gives_small_sets_more_than_an_epoch(
  pictures, total, epoch
):
  steps = count_steps(alexnet_today.get_config(), pictures)
  assert (steps.total, steps.every['eval']) == (total, epoch)
  assert steps.from_epochs(3) == -(-3 * max(pictures, 6400) // 128)
