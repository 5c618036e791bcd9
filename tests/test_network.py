"""The whole network: sizes of the paper, variants, and parity with PyTorch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import errors, train_step
from configs import (
  alexnet,
  alexnet_2012,
  alexnet_bn,
  alexnet_one_gpu,
  bvlc_alexnet,
  caffenet,
  cifar10,
  cifar10_11pct,
  cifar10_lrn,
  cnn_star,
  cnn_star_2009,
  cnn_star_pretrain,
  torchvision_alexnet,
)
from experiments import ablations, lrn_cifar10
from tests import in_memory, tiny

# A start's many samplers take ten times as long to compile as this.
quick_jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def num_parameters(config):
  params = train_step.abstract_train_state(config).params
  return sum(p.size for p in jax.tree.leaves(params))


def initial_params(config):
  size = config.data.crop_size
  init = quick_jit(train_step.create_model(config).init)
  params = init(jax.random.key(0), jnp.zeros((1, size, size, 3)))['params']
  return jax.device_get(params)


def output_sides(config):
  """Side lengths of every map: each convolution's, and what its pool left."""
  size = config.data.crop_size
  apply = functools.partial(
    train_step.create_model(config).apply,
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  params = train_step.abstract_train_state(config).params
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  _, state = jax.eval_shape(apply, {'params': params}, images)
  outputs = state['intermediates']
  return [
    towers[0].shape[1]
    for name in config.model.layers
    if name.startswith('conv') and name in outputs
    for towers in (outputs[name]['__call__'][0], outputs[f'{name}_output'][0])
  ]


def narrow(config):
  """The same network at the real size, with few features."""
  widths = {'conv1': 8, 'conv2': 16, 'conv3': 24, 'conv4': 24, 'conv5': 16}
  for layer, features in (widths | {'fc6': 32, 'fc7': 32}).items():
    config.model[layer].features = features
  config.data.crop_size = 224
  return config


@pytest.mark.parametrize(
  'config, expected',
  [
    (alexnet, 60965224),
    (alexnet_2012, 60965224),
    (alexnet_one_gpu, 59798312),
    (cifar10, 89578),
    (cifar10_lrn, 1116490),
    (cifar10_11pct, 2112970),
    (torchvision_alexnet, 61100840),  # its documentation
    (bvlc_alexnet, 60965224),
    (alexnet_bn, 60965224),
    (caffenet, 60965224),
  ],
)
def test_number_of_parameters(config, expected):
  assert num_parameters(config.get_config()) == expected


def test_sides_of_maps():
  expected = [55, 27, 27, 13, 13, 13, 13, 13, 13, 6]
  assert output_sides(alexnet.get_config()) == expected


def config_of(variant):
  """`alexnet_2012` with what a variant of an ablation changes."""
  config = alexnet_2012.get_config()
  changes = {**variant.schedule, **variant.overrides}
  config.update_from_flattened_dict(changes)
  return config


def test_net_147_pools_without_overlap():
  variants = ablations.EXPERIMENTS['ablation_pooling'].variants
  config = config_of(variants['not overlapping'])
  # CHM layers-147.cfg: conv2 is padded by 1, conv5 not at all.
  sides = [55, 28, 26, 13, 13, 13, 13, 13, 11, 6]
  assert output_sides(config) == sides
  assert num_parameters(config) == 60965224


def test_net_150_has_two_columns_that_meet_at_the_head():
  variants = ablations.EXPERIMENTS['ablation_towers'].variants
  config = config_of(variants['two towers apart'])
  params = train_step.abstract_train_state(config).params
  assert params['conv3']['kernel'].shape == (2, 3, 3, 160, 192)
  assert params['fc6']['kernel'].shape == (2, 6 * 6 * 128, 4096)
  assert params['fc7']['kernel'].shape == (2, 4096, 2048)
  assert num_parameters(config) == 60714408
  # CHM layer-params-150.cfg: 25, 49, 66, 72, 79, stop at 92.
  assert config.schedule.drops == ((25, 0.1), (49, 0.1), (79, 0.1))
  assert config.schedule.layer_drops.conv1 == ((66, 0.1), (72, 0.0))
  assert (config.data.color_noise_epochs, config.num_epochs) == (66, 92)


@pytest.mark.parametrize(
  'config, classes, expected',  # CHM layers-146-*.cfg
  [
    (cnn_star_2009, 10184, 99182152),
    (cnn_star_pretrain, 21843, 110605267),
    (cnn_star, 1000, 61555304),
  ],
)
def test_the_stages_of_cnn_star_have_the_sources_sizes(
  config, classes, expected
):
  config = config.get_config()
  config.model.num_classes = classes
  assert num_parameters(config) == expected


def test_the_pretrained_net_has_a_sixth_convolution():
  config = cnn_star.get_config()
  params = train_step.abstract_train_state(config).params
  assert params['conv6']['kernel'].shape == (2, 3, 3, 256, 128)
  assert output_sides(config)[-3:] == [6, 6, 6]  # conv5's pool, conv6
  assert num_parameters(config) == 60965224 + 2 * 128 * (3 * 3 * 256 + 1)


@pytest.mark.parametrize('config', [torchvision_alexnet, bvlc_alexnet])
def test_other_people_s_networks_have_the_papers_maps(config):
  sides = output_sides(config.get_config())
  assert sides == [55, 27, 27, 13, 13, 13, 13, 13, 13, 6]


def response_norm(x, lrn):
  """Over all channels of [N, H, W, C], in float64."""
  sums = np.zeros(x.shape)
  for i in range(x.shape[-1]):
    window = x[..., max(i - lrn.n // 2, 0) : i + lrn.n // 2 + 1]
    sums[..., i] = (np.asarray(window, np.float64) ** 2).sum(axis=-1)
  return x / (lrn.k + lrn.alpha / lrn.n * sums) ** lrn.beta


@pytest.fixture(scope='module')
def crossing():
  """Two towers whose first response norm crosses them."""
  config = tiny.get_config('')
  config.model.conv1.after = ('act', 'lrn')
  config.model.omit = 'conv3,conv4,conv5,fc7'
  config.model.lrn.update({'alpha': 5.0, 'alpha_over_n': True})
  config.model.lrn.across_towers = True
  return config


def test_response_norms_can_cross_towers(crossing):
  apply = functools.partial(
    train_step.create_model(crossing).apply,
    capture_intermediates=True,
    mutable='intermediates',
  )
  images = np.random.default_rng(0).standard_normal((2, 28, 28, 3))
  params = {'params': initial_params(crossing)}
  outputs = jax.jit(apply)(params, images)[1]['intermediates']
  maps, normed = outputs['conv1']['__call__'][0], outputs['conv1_output'][0]
  whole = np.maximum(np.concatenate(maps, axis=-1), 0)
  expected = response_norm(whole, crossing.model.lrn)
  actual = np.concatenate(normed, axis=-1)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_norms_that_cross_towers_train_the_same_on_devices(crossing):
  runs = []
  for crossing.num_devices in (1, 4):
    runs.append(in_memory.Training(crossing))
    losses = runs[-1].losses(3)
    assert np.isfinite(losses).all()
  one, four = (jax.tree.leaves(run.canonical().params) for run in runs)
  for a, b in zip(one, four, strict=True):
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize('net', ['13pct', '11pct'])
def test_footnote_3_s_norm_has_size_9_and_stands_after_the_first_pool(net):
  # cuda-convnet's layers-conv-local-11pct.cfg.
  if net == '13pct':
    config = cifar10_lrn.get_config()
    variant = lrn_cifar10.EXPERIMENT.variants['with LRN of size 9']
    config.update_from_flattened_dict(dict(variant.overrides))
  else:
    config = cifar10_11pct.get_config()
  model = config.model
  assert tuple(model.conv1.after) == ('act', 'max_pool', 'lrn')
  assert tuple(model.conv2.after) == ('act', 'lrn', 'max_pool')
  norm = model.lrn
  assert (norm.n, norm.k, norm.alpha, norm.beta) == (9, 1, 0.001, 0.75)
  assert norm.alpha_over_n


def test_an_omitted_layer_hands_its_gather_on():
  config = alexnet.get_config()
  config.model.omit = 'conv3'
  params = train_step.abstract_train_state(config).params
  assert 'conv3' not in params
  assert params['conv4']['kernel'].shape == (2, 3, 3, 256, 192)
  assert params['conv5']['kernel'].shape == (2, 3, 3, 192, 128)


def test_an_omitted_layer_leaves_its_pool():
  config = alexnet.get_config()
  config.model.omit = 'conv5'
  assert output_sides(config)[-2:] == [13, 6]  # conv4's maps, then pool3
  params = train_step.abstract_train_state(config).params
  assert params['fc6']['kernel'].shape == (2, 6 * 6 * 384, 2048)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('omit', 'lrn,conv9', 'conv9'),
    ('omit', 'fc8', 'fc8'),
    ('conv2.after', ('act', 'pool'), "model.conv2.after names 'pool'"),
    ('layers', ('conv1', 'conv9', 'fc8'), "'conv9'"),
    ('layers', ('conv1', 'fc8', 'fc7'), "'fc8'"),
  ],
)
def test_unknown_names_end_in_a_sentence(field, value, message):
  config = alexnet.get_config()
  config.model.update_from_flattened_dict({field: value})
  with pytest.raises(errors.UserError, match=message):
    num_parameters(config)


# Too small for conv2's filters, and for the last pool.
@pytest.mark.parametrize('crop_size', [8, 56])
def test_too_small_crops_end_in_a_sentence(crop_size):
  config = alexnet.get_config('shapes')
  config.data.crop_size = crop_size
  with pytest.raises(errors.UserError, match='crop_size'):
    num_parameters(config)


def test_pools_that_leave_cells_out_end_in_a_sentence():
  config = alexnet.get_config('shapes')
  config.model.pool.stride = 4
  with pytest.raises(errors.UserError, match=r'model\.pool\.stride=4'):
    num_parameters(config)


PAPER_START = {
  'conv1': (0.01, 0),
  'conv2': (0.01, 1),
  'conv3': (0.01, 0),
  'conv4': (0.01, 1),
  'conv5': (0.01, 1),
  'fc6': (0.01, 1),
  'fc7': (0.01, 1),
  'fc8': (0.01, 0),
}
SOURCE_START = PAPER_START | {
  'conv3': (0.03, 0),
  'conv4': (0.03, 1),
  'conv5': (0.03, 1),
}


def check_normal(kernel, std):
  """Within five standard errors of N(0, std^2)."""
  assert abs(kernel.mean()) < 5 * std / math.sqrt(kernel.size)
  assert abs(kernel.std() / std - 1) < 5 / math.sqrt(2 * kernel.size)


@pytest.mark.parametrize(
  'config, expected', [(alexnet, PAPER_START), (alexnet_2012, SOURCE_START)]
)
def test_initial_weights_and_biases(config, expected):
  params = initial_params(narrow(config.get_config('shapes')))
  assert params.keys() == expected.keys()
  for layer, (std, bias) in expected.items():
    check_normal(params[layer]['kernel'], std)
    assert (params[layer]['bias'] == bias).all()
  # Towers start from numbers of their own.
  first, second = params['conv1']['kernel']
  assert (first != second).mean() > 0.99


def check_he(params, fan_in):
  for layer, inputs in fan_in.items():
    check_normal(params[layer]['kernel'], math.sqrt(2 / inputs))


def test_he_initialisation_has_variance_2_over_fan_in():
  config = narrow(alexnet.get_config('shapes'))
  config.model.init = 'he'
  fan_in = {'conv1': 11 * 11 * 3, 'conv3': 9 * 32, 'fc6': 36 * 32, 'fc8': 64}
  check_he(initial_params(config), fan_in)
  config = cifar10_lrn.get_config()
  config.model.init = 'he'
  fan_in = {'local3': 9 * 64, 'fc10': 6 * 6 * 32}
  check_he(initial_params(config), fan_in)


def test_each_layer_draws_its_own_mask():
  config = narrow(alexnet.get_config('shapes'))
  config.data.crop_size = 84
  apply = functools.partial(
    train_step.create_model(config).apply, train=True, mutable='intermediates'
  )
  _, state = quick_jit(apply)(
    {'params': initial_params(config)},
    jnp.zeros((2, 84, 84, 3)),
    jnp.arange(2, dtype=jnp.uint32),
    rngs={'dropout': jax.random.key(0)},
  )
  outputs = state['intermediates']  # of fc6 and fc7, about 1 where kept
  masks = [np.stack(outputs[f'fc{i}_output'][0]) > 0 for i in (6, 7)]
  assert all(0.3 < mask.mean() < 0.7 for mask in masks)
  assert (masks[0] != masks[1]).any()


def random_params(config):
  """Every layer's outputs matter: weights of variance 2 / fan-in."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    fan_in = math.prod(leaf.shape[-4:-1])
    scale = math.sqrt(2 / fan_in) if path[1].key == 'kernel' else 0.5
    return scale * rng.standard_normal(leaf.shape)

  params = train_step.abstract_train_state(config).params
  return jax.tree_util.tree_map_with_path(draw, params)


class TorchNet:
  """AlexNet over whole maps: convolutions in groups, no towers."""

  def __init__(self, torch, params):
    self.torch, self.F = torch, torch.nn.functional
    self.params = jax.tree.map(torch.from_numpy, params)

  def conv(self, name, x, **settings):
    kernel, bias = (self.params[name][k] for k in ('kernel', 'bias'))
    weight = kernel.permute(0, 4, 3, 1, 2).flatten(0, 1)
    return self.F.conv2d(x, weight, bias.flatten(), **settings)

  def dense(self, name, x):
    kernel, bias = (self.params[name][k] for k in ('kernel', 'bias'))
    return x @ self.torch.cat(list(kernel), 1) + bias.flatten()

  def lrn(self, x, alpha):
    # Per half: windows do not cross towers. torch divides alpha by 5.
    halves = [
      self.F.local_response_norm(half, 5, alpha, 0.75, 2.0)
      for half in x.chunk(2, 1)
    ]
    return self.torch.cat(halves, 1)

  def spatial_norm(self, x):
    squares = self.F.avg_pool2d(x * x, 5, 1, 2, count_include_pad=True)
    return x / (1 + 0.001 * squares) ** 0.75

  def pool(self, x):
    return self.F.max_pool2d(x, 3, 2)

  def paper_start(self, x):
    x = self.conv('conv1', self.F.pad(x, (0, 3, 0, 3)), stride=4)
    x = self.pool(self.lrn(self.F.relu(x), 5e-4))
    x = self.conv('conv2', x, padding=2, groups=2)
    return self.pool(self.lrn(self.F.relu(x), 5e-4))

  def source_start(self, x):
    x = self.conv('conv1', self.F.pad(x, (0, 3, 0, 3)), stride=4)
    x = self.F.relu(self.pool(self.lrn(x, 1e-4)))
    x = self.conv('conv2', x, padding=2, groups=2)
    return self.pool(self.spatial_norm(self.lrn(self.F.relu(x), 1e-4)))

  def bn(self, x):
    moments = next(self.moments)
    return self.F.batch_norm(x, *moments, training=self.train, eps=1e-4)

  def bn_network(self, x, stats, train):
    # torch writes the new running moments into the tensors that it is given.
    self.train, self.moments = train, iter(stats)
    relu = self.F.relu
    x = self.bn(self.pool(relu(self.conv('conv1', x, stride=4))))
    x = self.conv('conv2', x, padding=2, groups=2)
    x = self.bn(self.pool(relu(x)))
    x = self.bn(relu(self.conv('conv3', x, padding=1)))
    x = self.bn(relu(self.conv('conv4', x, padding=1, groups=2)))
    x = self.pool(relu(self.conv('conv5', x, padding=1, groups=2)))
    x = x.permute(0, 2, 3, 1).flatten(1)
    x = relu(self.dense('fc7', relu(self.dense('fc6', x))))
    return x @ self.params['fc8']['kernel'] + self.params['fc8']['bias']

  def rest(self, x):
    relu = self.F.relu
    x = relu(self.conv('conv3', x, padding=1))
    x = relu(self.conv('conv4', x, padding=1, groups=2))
    x = self.pool(relu(self.conv('conv5', x, padding=1, groups=2)))
    x = x.permute(0, 2, 3, 1).flatten(1)
    x = 0.5 * relu(self.dense('fc6', x))
    x = 0.5 * relu(self.dense('fc7', x))
    return x @ self.params['fc8']['kernel'] + self.params['fc8']['bias']


@pytest.mark.parametrize(
  'config, start', [(alexnet, 'paper_start'), (alexnet_2012, 'source_start')]
)
def test_logits_equal_those_of_a_network_in_pytorch(config, start):
  torch = pytest.importorskip('torch')
  config = narrow(config.get_config('shapes'))
  params = random_params(config)
  # Like pixels less their mean: the norms' sums matter.
  images = 64 * np.random.default_rng(1).standard_normal((2, 224, 224, 3))
  net = TorchNet(torch, params)
  x = torch.from_numpy(images).permute(0, 3, 1, 2)
  expected = net.rest(getattr(net, start)(x)).numpy()
  float32 = functools.partial(jax.tree.map, np.float32)
  model = train_step.create_model(config)
  logits = jax.jit(model.apply)({'params': float32(params)}, float32(images))
  assert logits.dtype == np.float32
  difference = np.abs(logits - expected).max()
  assert difference <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('train', [False, True])
def test_a_network_with_batch_norm_is_pytorchs(train):
  torch = pytest.importorskip('torch')
  config = narrow(alexnet_bn.get_config('shapes'))
  config.data.crop_size, config.model.omit = 67, 'dropout'
  abstract = train_step.abstract_train_state(config).batch_stats
  rng = np.random.default_rng(2)
  stats = jax.tree.map(lambda x: rng.uniform(0.5, 2, x.shape), abstract)
  images = rng.standard_normal((3, 67, 67, 3))
  params = random_params(config)
  moments = [
    [
      torch.tensor(stats[f'conv{i}_batch_norm'][k].ravel())
      for k in ('mean', 'var')
    ]
    for i in (1, 2, 3, 4)
  ]
  net = TorchNet(torch, params)
  x = torch.from_numpy(images).permute(0, 3, 1, 2)
  expected = net.bn_network(x, moments, train).numpy()
  variables = {'params': params, 'batch_stats': stats}
  apply = functools.partial(
    train_step.create_model(config).apply, train=train, mutable=['batch_stats']
  )
  logits, changed = quick_jit(apply)(
    jax.tree.map(np.float32, variables), np.float32(images)
  )
  error = np.abs(logits - expected).max()
  assert error <= 1e-4 * np.abs(expected).max()
  for i, (mean, _) in enumerate(moments, 1):
    ours = changed['batch_stats'][f'conv{i}_batch_norm']['mean']
    np.testing.assert_allclose(ours.ravel(), mean, rtol=1e-4)


def test_moments_belong_to_towers():
  stats = train_step.abstract_train_state(alexnet_bn.get_config()).batch_stats
  assert stats['conv3_batch_norm']['var'].shape == (2, 192)
  assert sum(x.size for x in jax.tree.leaves(stats)) == 2240
