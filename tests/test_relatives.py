"""LeNet to EfficientNet: sizes, batch normalisation, parity with PyTorch."""

import functools
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from alexnet_jax import errors, models, parallel
from alexnet_jax.models import batch_norm, googlenet, layers
from alexnet_jax.weights import torchvision

# As in tests/test_network.py: small programs that run once.
QUICK = {'xla_backend_optimization_level': 0}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


def model_of(name, towers=None, **fields):
  config = {'num_classes': 1000, 'dtype': 'float32', **models.VARIANTS[name]}
  config = ml_collections.ConfigDict(config)
  config.update_from_flattened_dict(fields)
  config = ml_collections.FrozenConfigDict(config)
  return models.MODELS[name](config, towers or parallel.LocalTowers(1))


def images_of(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def variables_of(model, images):
  return jax.eval_shape(model.init, jax.random.key(0), images)


def size_of(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def multiply_adds(jaxpr):
  """Returns those of all products and convolutions of a program."""
  total = 0
  for equation in jaxpr.eqns:
    shapes = [x.aval.shape for x in equation.invars]
    outputs = [x.aval.size for x in equation.outvars]
    if equation.primitive.name == 'conv_general_dilated':
      outer = equation.params['dimension_numbers'].rhs_spec[0]
      total += outputs[0] * math.prod(shapes[1]) // shapes[1][outer]
    elif equation.primitive.name == 'dot_general':
      (axes, _), _ = equation.params['dimension_numbers']
      total += outputs[0] * math.prod(shapes[0][axis] for axis in axes)
    for value in equation.params.values():
      total += multiply_adds(value) if hasattr(value, 'eqns') else 0
  return total


FLOAT32 = jnp.dtype('float32')
TEN = {'num_classes': 10}
BN = {'vgg.batch_norm': True}
CIFAR_STEM = TEN | {'resnet.stem': 'cifar'}
B = TEN | {'resnet.shortcut': 'B'}
V1 = {'resnet.stride_in_1x1': True}
SMALL_STEM = TEN | {'efficientnet.stem_stride': 1}
SMALL_IMAGES = TEN | {'googlenet.small_images': True}
LARGE, CIFAR = (224, 3), (32, 3)


def dense(*widths):
  return TEN | BN | {'vgg.dense': widths}


# Parameters, batch statistics and multiply-adds: published, or counted by hand.
@pytest.mark.parametrize(
  'name, fields, image, params, stats, macs',
  [
    ('lenet5', TEN, (32, 1), 61_706, 0, 416_520),
    ('lenet5', TEN | {'lenet.padding': 2}, (28, 1), 61_706, 0, 416_520),
    ('lenet5', TEN, CIFAR, 62_006, 0, 651_720),
    ('lenet_caffe', TEN, (28, 1), 431_080, 0, 2_293_000),
    ('vgg16', {}, LARGE, 138_357_544, 0, 15_470_264_320),
    ('vgg16', BN, LARGE, 138_365_992, 8_448, 15_470_264_320),
    ('vgg16', dense(), CIFAR, 14_728_266, 8_448, 313_201_664),
    ('vgg16', dense(512, 512), CIFAR, 15_253_578, 8_448, 313_725_952),
    ('vgg19', {}, LARGE, 143_667_240, 0, 19_632_062_464),
    ('vgg19', BN, LARGE, 143_678_248, 11_008, 19_632_062_464),
    ('googlenet', {}, LARGE, 13_378_280, 0, 1_582_671_872),
    ('googlenet', SMALL_IMAGES, CIFAR, 6_166_250, 15_808, 1_521_756_160),
    ('resnet18', {}, LARGE, 11_689_512, 9_600, 1_814_073_344),
    ('resnet18', CIFAR_STEM, CIFAR, 11_173_962, 9_600, 555_422_720),
    ('resnet34', {}, LARGE, 21_797_672, 17_024, 3_663_761_408),
    ('resnet50', {}, LARGE, 25_557_032, 53_120, 4_089_184_256),
    ('resnet50', V1, LARGE, 25_557_032, 53_120, 3_857_973_248),
    ('resnet20_cifar', TEN, CIFAR, 269_722, 1_376, 40_551_040),
    ('resnet20_cifar', B, CIFAR, 272_474, 1_568, 40_813_184),
    ('efficientnet_b0', {}, LARGE, 5_288_548, 42_016, 385_814_752),
    ('efficientnet_b0', SMALL_STEM, CIFAR, 4_020_358, 42_016, 31_979_392),
  ],
)
def test_sizes(monkeypatch, name, fields, image, params, stats, macs):
  # Where depthwise convolutions are convolutions, which can be counted.
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  model, images = model_of(name, **fields), images_of(1, *image[:1], *image)
  variables = variables_of(model, images)
  assert size_of(variables['params']) == params
  assert size_of(variables.get('batch_stats', {})) == stats
  assert 'head' in variables['params']
  assert multiply_adds(jax.make_jaxpr(model.apply)(variables, images)) == macs


@pytest.mark.parametrize(
  'name, fields, params',
  [
    ('resnet18', {'resnet.shortcut': 'A'}, 11_515_688),
    ('resnet50', CIFAR_STEM, 23_520_842),
    ('resnet20_cifar', TEN | {'resnet.blocks': (5, 5, 5)}, 464_154),
    ('resnet20_cifar', TEN | {'resnet.blocks': (7, 7, 7)}, 658_586),
    ('resnet20_cifar', TEN | {'resnet.blocks': (9, 9, 9)}, 853_018),
    ('resnet20_cifar', TEN | {'resnet.blocks': (18, 18, 18)}, 1_727_962),
  ],
)
def test_sizes_of_other_resnets(name, fields, params):
  variables = variables_of(model_of(name, **fields), images_of(1, 32, 32, 3))
  assert size_of(variables['params']) == params


def train(model, variables, images, index, key=0):
  """Returns the logits, and the collections that training changes."""
  return model.apply(
    variables,
    images,
    index,
    train=True,
    rngs={'dropout': jax.random.key(key)},
    mutable=['batch_stats', 'auxiliary_logits'],
  )


def test_googlenet_s_auxiliary_heads_are_for_training_alone():
  model, images = model_of('googlenet'), images_of(2, 224, 224, 3)
  params = variables_of(model, images)['params']
  main = {k: v for k, v in params.items() if not k.startswith('aux')}
  assert size_of(main) == 6_998_552
  logits = jax.eval_shape(model.apply, {'params': main}, images)
  index = jax.ShapeDtypeStruct((2,), jnp.uint32)
  arguments = ({'params': params}, images, index)
  program = functools.partial(train, model)
  outputs, others = jax.eval_shape(program, *arguments)
  assert (
    jax.tree.leaves(others['auxiliary_logits'])
    == [logits, logits]
    == 2 * [outputs]
  )
  macs = multiply_adds(jax.make_jaxpr(program)(*arguments))
  assert macs == 2 * 1_591_044_096


@pytest.mark.parametrize('name', models.VARIANTS)
def test_bfloat16_leaves_parameters_and_logits_in_float32(name):
  channels = 1 if name.startswith('lenet') else 3
  images = images_of(2, 96, 96, channels)
  model = model_of(name, dtype='bfloat16')
  variables = variables_of(model, images)
  apply = functools.partial(
    model.apply, capture_intermediates=True, mutable='intermediates'
  )
  logits, state = jax.eval_shape(apply, variables, images)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {FLOAT32}
  assert logits.dtype == FLOAT32
  outputs = state['intermediates']
  del outputs['head'], outputs['__call__']
  types = {leaf.dtype for leaf in jax.tree.leaves(outputs)}
  assert types == {jnp.dtype('bfloat16')}


@pytest.mark.parametrize(
  'name, side',
  [('lenet5', 15), ('lenet_caffe', 15), ('vgg16', 31), ('googlenet', 46)],
)
def test_too_small_images_end_in_a_sentence(name, side):
  channels = 1 if name.startswith('lenet') else 3
  with pytest.raises(errors.UserError, match=r'data\.crop_size is too small'):
    variables_of(model_of(name), images_of(1, side, side, channels))
  variables_of(model_of(name), images_of(1, side + 1, side + 1, channels))


@pytest.mark.parametrize(
  'name, fields, layer, variance',
  [
    ('lenet_caffe', {}, 'fc3', 1 / 800),
    ('vgg16', {'vgg.dense': ()}, 'conv5_1', 2 / (9 * 512)),
    ('vgg16', {'vgg.dense': ()}, 'head', 1e-4),
    ('googlenet', {}, 'conv2', 1 / (9 * 64)),
    ('resnet20_cifar', {}, 'stage2/block1/conv1', 2 / (9 * 32)),
    ('resnet20_cifar', {}, 'head', 1 / (3 * 64)),
    ('efficientnet_b0', {}, 'stage6/block2/depthwise_conv', 2 / 25),
    ('efficientnet_b0', {}, 'stage6/block2/project_conv', 2 / 192),
    ('efficientnet_b0', {}, 'head', 1 / (3 * 1000)),
  ],
)
def test_initial_weights(name, fields, layer, variance, monkeypatch):
  side, channels = (28, 1) if name == 'lenet_caffe' else (47, 3)

  def start():
    images = jnp.zeros((1, side, side, channels))
    params = model_of(name, **fields).init(jax.random.key(0), images)['params']
    return functools.reduce(
      lambda tree, part: tree[part], layer.split('/'), params
    )

  # XLA drops what is not returned.
  params = quick_jit(start)()
  kernel = params['kernel']
  assert abs(kernel.mean()) < 5 * math.sqrt(variance / kernel.size)
  assert abs(kernel.var() / variance - 1) < 5 * math.sqrt(2 / kernel.size)
  bias = {'googlenet': 0.2}.get(name, 0)
  assert (params.get('bias', np.float32(bias)) == np.float32(bias)).all()


def test_blocks_can_start_as_the_identity():
  model = model_of(
    'resnet20_cifar', **{'resnet.zero_gamma': True, 'resnet.blocks': (1, 2)}
  )
  images = np.zeros((1, 8, 8, 3), np.float32)
  params = quick_jit(model.init)(jax.random.key(0), images)['params']
  for stage in ('stage1', 'stage2'):
    for block in params[stage].values():
      assert (block['bn1']['scale'] == 1).all()
      assert (block['bn2']['scale'] == 0).all()


def test_stochastic_depth_keeps_or_drops_whole_examples():
  drop = layers.TowerDropout(0.75, inverted=True, whole_example=True)
  index = np.arange(400, dtype=np.uint32)
  x = np.ones((400, 2, 2, 3), np.float32)
  rngs = {'dropout': jax.random.key(0)}
  (y,) = drop.apply({}, [x], [0], index, True, rngs=rngs)
  assert (y == y[:, :1, :1, :1]).all()
  np.testing.assert_allclose(np.unique(y), [0, 4 / 3])
  assert abs((y[:, 0, 0, 0] > 0).mean() - 0.75) < 0.1
  (again,) = drop.apply({}, [x[:9]], [0], index[7:16], True, rngs=rngs)
  assert (again == y[7:16]).all()


def on_devices(count, function, variables, batch):
  """Runs function(plan, variables, batch), which returns a pair of trees.

  The first is the same on all devices, the second has values of each example.
  """
  plan = parallel.make_plan(1, count)
  program = plan.compile(
    functools.partial(function, plan), deterministic=False, donate=False
  )
  nowhere = jax.tree.map(lambda _: False, variables)
  same, each = program(
    plan.put_state(variables, nowhere), plan.put_batch(batch)
  )
  return jax.device_get((plan.get(same), plan.get_batch(each)))


def assert_close(actual, expected, tolerance):
  """Compares trees, relative to the largest value of each leaf.

  Gradients that are 0, as those of a bias before a batch norm, are rounding.
  """
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(actual),
    jax.tree.leaves(expected),
    strict=True,
  )
  for (path, a), b in pairs:
    limit = tolerance * np.abs(b).max() + 1e-5
    assert np.abs(a - b).max() <= limit, jax.tree_util.keystr(path)


def variables_of_norm(channels):
  zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
  return {
    'params': {'scale': 2 * ones, 'bias': ones},
    'batch_stats': {'mean': zeros, 'var': ones},
  }


def norm_step(group, plan, variables, batch):
  fields = ml_collections.FrozenConfigDict(batch_norm.FIELDS | {'group': group})
  norm = batch_norm.BatchNorm(fields, plan.towers)
  count = len(batch['x']) * plan.num_data_shards

  def loss(params, x):
    variables_ = {**variables, 'params': params}
    y, state = norm.apply(variables_, x, True, mutable=['batch_stats'])
    return (y * batch['weight']).sum() / count, (state['batch_stats'], y)

  (of_params, of_x), (stats, y) = jax.grad(loss, (0, 1), has_aux=True)(
    variables['params'], batch['x']
  )
  nowhere = jax.tree.map(lambda _: False, of_params)
  return (plan.sum_gradients(of_params, nowhere), stats), (y, of_x)


def plain_norm(x, group):
  """Returns the output, and the running moments from 0 and 1, in float64."""
  parts = x.astype(np.float64).reshape(-1, group or len(x), *x.shape[1:])
  mean = parts.mean((1, 2, 3), keepdims=True)
  variance = parts.var((1, 2, 3), keepdims=True)
  y = ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
  stats = {
    'mean': 0.1 * mean.mean((0, 1, 2, 3)),
    'var': 0.9 + 0.1 * variance.mean((0, 1, 2, 3)),
  }
  return y, stats


@pytest.mark.parametrize('group', [0, 2, 4, 8])
def test_moments_are_those_of_the_global_batch_or_of_groups_of_it(
  group, monkeypatch
):
  monkeypatch.setattr(parallel, 'compiler_options', lambda _: QUICK)
  rng = np.random.default_rng(0)
  x, weight = rng.standard_normal((2, 8, 3, 3, 5)).astype(np.float32)
  x += np.arange(8)[:, None, None, None]  # devices differ
  variables = variables_of_norm(5)
  step = functools.partial(norm_step, group)
  batch = {'x': x, 'weight': weight}
  runs = {n: on_devices(n, step, variables, batch) for n in (1, 2, 4)}
  (_, stats), (y, _) = runs[1]
  expected, expected_stats = plain_norm(x, group)
  assert_close(y, 2 * expected + 1, 1e-5)
  assert_close(stats, expected_stats, 1e-5)
  for n in (2, 4):
    assert_close(runs[n], runs[1], 1e-5)


@pytest.mark.parametrize('devices, group', [(1, 3), (2, 6), (4, 3), (4, 6)])
def test_groups_that_do_not_fit_end_in_a_sentence(devices, group):
  batch = {'x': np.zeros((8, 1, 1, 1), 'f'), 'weight': np.zeros(8, 'f')}
  step = functools.partial(norm_step, group)
  with pytest.raises(errors.UserError, match=rf'batch_norm\.group={group} '):
    on_devices(devices, step, variables_of_norm(1), batch)


SMALL = {
  'num_classes': 10,
  'efficientnet.stem': 8,
  # With and without an expansion, and a way around it.
  'efficientnet.stages': ((1, 3, 1, 8, 1), (4, 5, 2, 8, 2)),
  'efficientnet.top': 24,
}


def network_step(fields, plan, variables, batch):
  model = model_of('efficientnet_b0', plan.towers, **fields)
  count = len(batch['image']) * plan.num_data_shards

  def loss(params):
    variables_ = {**variables, 'params': params}
    logits, state = train(model, variables_, batch['image'], batch['index'])
    return (logits * batch['weight']).sum() / count, (state, logits)

  gradients, (state, logits) = jax.grad(loss, has_aux=True)(variables['params'])
  nowhere = jax.tree.map(lambda _: False, gradients)
  return (plan.sum_gradients(gradients, nowhere), state), logits


def test_devices_do_not_change_a_network(monkeypatch):
  monkeypatch.setattr(parallel, 'compiler_options', lambda _: QUICK)
  fields = SMALL | {'keep': 0.5, 'efficientnet.survival': 0.2}
  fields['efficientnet.stages'] = ((1, 3, 1, 8, 2),)
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.standard_normal((8, 8, 8, 3)).astype(np.float32),
    'weight': rng.standard_normal((8, 10)).astype(np.float32),
    'index': np.arange(8, dtype=np.uint32),
  }
  model = model_of('efficientnet_b0', **fields)
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32),
    variables_of(model, batch['image']),
  )
  step = functools.partial(network_step, fields)
  one, four = (on_devices(n, step, variables, batch) for n in (1, 4))
  assert_close(four, one, 1e-4)


def count_values(torch, net):
  """Returns a dict that is filled with m, the values of each channel."""
  counts = {}

  def count(name, module, inputs, outputs):
    counts[name] = outputs.numel() // outputs.shape[1]

  for name, module in net.named_modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.register_forward_hook(functools.partial(count, name))
  return counts


def torch_step(torch, net, images, weight, to_ours):
  """Returns logits of evaluation and training, and what a step changes."""
  before = {k: v.clone() for k, v in net.state_dict().items()}
  counts = count_values(torch, net)
  evaluated, logits = net(images), net.train()(images)
  (logits * weight).sum().backward()
  gradients = {name: p.grad for name, p in net.named_parameters()}
  moments = {k: v for k, v in net.state_dict().items() if 'running' in k}
  for name, m in counts.items():
    # Ours is the biased variance, PyTorch's m / (m - 1) times that.
    new, old = moments[f'{name}.running_var'], before[f'{name}.running_var']
    moments[f'{name}.running_var'] = 0.9 * old + (new - 0.9 * old) * (m - 1) / m
  changed = to_ours(gradients | moments)
  return evaluated.detach().numpy(), logits.detach().numpy(), changed


def step(model, variables, images, weight):
  """Returns what `torch_step` does, of our network."""

  def loss(params):
    index = jnp.arange(len(images), dtype=jnp.uint32)
    variables_ = {**variables, 'params': params}
    logits, state = train(model, variables_, images, index)
    return (logits * weight).sum(), (logits, state)

  grad = jax.grad(loss, has_aux=True)
  gradients, (logits, state) = grad(variables['params'])
  evaluated = model.apply(variables, images)
  return evaluated, logits, {'params': gradients, **state}


def check_parity(torch, net, model, side):
  from tests import torch_nets

  def to_arrays(tensors):
    return {
      name: tensor.numpy()
      for name, tensor in tensors.items()
      if not name.endswith('num_batches_tracked')
    }

  def to_ours(tensors):
    return torchvision.to_variables(model.config, to_arrays(tensors))

  net = torch_nets.randomize(net)
  variables = to_ours(net.state_dict())
  exported = torchvision.from_variables(model.config, variables)
  expected = to_arrays(net.state_dict())
  assert exported.keys() == expected.keys()
  jax.tree.map(np.testing.assert_array_equal, exported, expected)
  net = net.double()
  rng = np.random.default_rng(0)
  images = rng.standard_normal((4, side, side, 3))
  weight = rng.standard_normal((4, 10))
  arguments = jax.tree.map(np.float32, (variables, images, weight))
  actual = quick_jit(functools.partial(step, model))(*arguments)
  x = torch.from_numpy(images).permute(0, 3, 1, 2)
  expected = torch_step(torch, net, x, torch.from_numpy(weight), to_ours)
  assert_close(jax.device_get(actual), expected, 1e-4)


@pytest.mark.parametrize('batch_norm', [False, True])
def test_vgg_equals_pytorch(batch_norm):
  torch = pytest.importorskip('torch')
  from tests import torch_nets

  convs, width, dense = (1, 2), 6, (20,)
  net = torch_nets.VGG(convs, width, dense, 16, batch_norm)
  fields = {'convs': convs, 'width': width, 'dense': dense}
  fields = {f'vgg.{k}': v for k, v in fields.items()}
  fields |= {'vgg.batch_norm': batch_norm, 'num_classes': 10, 'keep': 1.0}
  model = model_of('vgg16', **fields)
  check_parity(torch, net, model, 16)


@pytest.mark.parametrize(
  'bottleneck, shortcut, stem, side',
  [
    (False, 'A', 'cifar', 9),
    (True, 'B', 'imagenet', 33),
  ],
)
def test_resnet_equals_pytorch(bottleneck, shortcut, stem, side):
  torch = pytest.importorskip('torch')
  from tests import torch_nets

  fields = {
    'blocks': (1, 2),
    'width': 6,
    'bottleneck': bottleneck,
    'shortcut': shortcut,
    'stem': stem,
  }
  net = torch_nets.ResNet(**fields)
  fields = {f'resnet.{k}': v for k, v in fields.items()}
  model = model_of('resnet18', num_classes=10, **fields)
  check_parity(torch, net, model, side)


@pytest.mark.parametrize('form', ['TPU', 'TV'])
def test_efficientnet_equals_pytorch(form):
  torch = pytest.importorskip('torch')
  from tests import torch_nets

  stages = SMALL['efficientnet.stages']
  epsilon = {'TPU': 1e-3, 'TV': 1e-5}[form]
  net = torch_nets.EfficientNet(8, stages, 24, epsilon, form == 'TPU')
  fields = SMALL | {'keep': 1.0, 'efficientnet.survival': 1.0}
  fields |= {'batch_norm.epsilon': epsilon, 'batch_norm.momentum': 0.9}
  fields['efficientnet.torch_padding'] = form == 'TV'
  model = model_of('efficientnet_b0', **fields)
  check_parity(torch, net, model, 18)


class TorchNet:
  """The networks of Caffe and LeNet-5 in PyTorch, with parameters of ours."""

  def __init__(self, torch, params):
    self.torch, self.F = torch, torch.nn.functional
    self.params = jax.tree.map(torch.from_numpy, params)

  def layer(self, path):
    tree = self.params
    for part in path.split('/'):
      tree = tree[part]
    return tree['kernel'], tree['bias']

  def conv(self, path, x, **settings):
    kernel, bias = self.layer(path)
    return self.F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, **settings)

  def dense(self, path, x):
    kernel, bias = self.layer(path)
    return (
      x.permute(0, 2, 3, 1).flatten(1) if x.ndim > 2 else x
    ) @ kernel + bias

  def lenet5(self, x):
    for path, padding in (('conv1', 2), ('conv2', 0)):
      x = self.F.avg_pool2d(self.conv(path, x, padding=padding).tanh(), 2)
    x = self.dense('fc4', self.dense('fc3', x).tanh()).tanh()
    return [self.dense('head', x)]

  def lenet_caffe(self, x):
    for path in ('conv1', 'conv2'):
      x = self.F.max_pool2d(self.conv(path, x), 2)
    return [self.dense('head', self.dense('fc3', x).relu())]

  def inception(self, name, x):
    def conv(part, x, padding=0):
      return self.conv(f'{name}/{part}', x, padding=padding).relu()

    branches = [
      conv('conv_1x1', x),
      conv('conv_3x3', conv('conv_3x3_reduce', x), 1),
      conv('conv_5x5', conv('conv_5x5_reduce', x), 2),
      conv('pool_proj', self.F.max_pool2d(x, 3, 1, 1)),
    ]
    return self.torch.cat(branches, 1)

  def auxiliary(self, name, x):
    x = self.F.avg_pool2d(x, 5, 3, ceil_mode=True)
    x = self.dense(f'{name}/fc', self.conv(f'{name}/conv', x).relu())
    return self.dense(f'{name}/head', x.relu())

  def googlenet(self, x):
    def lrn(x):
      return self.F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)

    def pool(x):
      return self.F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = lrn(pool(self.conv('conv1', x, stride=2, padding=3).relu()))
    x = self.conv('conv2_reduce', x).relu()
    x = pool(lrn(self.conv('conv2', x, padding=1).relu()))
    x = pool(self.inception('inception_3b', self.inception('inception_3a', x)))
    x = self.inception('inception_4a', x)
    auxiliary = [self.auxiliary('aux1', x)]
    for letter in 'bcd':
      x = self.inception(f'inception_4{letter}', x)
    auxiliary.append(self.auxiliary('aux2', x))
    x = pool(self.inception('inception_4e', x))
    x = self.inception('inception_5b', self.inception('inception_5a', x))
    return [self.dense('head', x.mean((2, 3))), *auxiliary]


@pytest.mark.parametrize(
  'name, shape, fields',
  [
    ('lenet5', (28, 28, 1), {'lenet.padding': 2}),
    ('lenet_caffe', (28, 28, 1), {}),
    ('googlenet', (65, 65, 3), {'keep': 1.0}),
  ],
)
def test_nets_of_caffe_equal_pytorch(name, shape, fields, monkeypatch):
  torch = pytest.importorskip('torch')
  monkeypatch.setattr(googlenet, '_AUX_KEEP', 1.0)
  for widths in googlenet.INCEPTIONS.items():
    monkeypatch.setitem(
      googlenet.INCEPTIONS, widths[0], tuple(n // 8 for n in widths[1])
    )
  model, rng = (
    model_of(name, num_classes=10, **fields),
    np.random.default_rng(0),
  )
  # As large as pixels: response norms matter.
  images = 64 * rng.standard_normal((2, *shape))

  def draw(leaf):
    std = math.sqrt(2 / math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.5
    return std * rng.standard_normal(leaf.shape)

  params = jax.tree.map(draw, variables_of(model, images)['params'])
  x = torch.from_numpy(images).permute(0, 3, 1, 2)
  expected = getattr(TorchNet(torch, params), name)(x)
  run = quick_jit(functools.partial(train, model))
  params, images = jax.tree.map(np.float32, (params, images))
  logits, state = run({'params': params}, images, np.arange(2, dtype=np.uint32))
  actual = jax.device_get([logits, *jax.tree.leaves(state)])
  assert_close(actual, [y.numpy() for y in expected], 1e-4)
