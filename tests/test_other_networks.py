"""Networks other than AlexNet: trained, resumed, applied; what is refused."""

import types

import jax
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax import config as config_lib
from alexnet_jax import (
  errors,
  evaluate,
  fine_tune,
  models,
  train,
  train_step,
  trained,
  validate,
)
from alexnet_jax.data import pipeline, prepare, preprocessing
from alexnet_jax.run import build_run
from alexnet_jax.tools import describe, export, import_weights
from alexnet_jax.weights import torchvision
from alexnet_jax.workdir import files
from configs import lenet_caffe, resnet20_cifar
from tests import runs, tiny
from tests.faults import trial


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  tiny.prepare_tiny(path)
  return str(path)


def config_of(data_dir: str, **fields):
  """A ResNet of two blocks for ten steps of 16."""
  config = resnet20_cifar.get_config('cifar10')
  config.model.resnet.update({'blocks': (1, 1), 'width': 4})
  config.model.num_classes = len(tiny.CLASSES)
  config.update_from_flattened_dict(
    {
      'data.name': 'tiny',
      'data.dir': data_dir,
      'batch_size': 16,
      'train_steps': 10,
      'eval_every_steps': 5,
      'log_every_steps': 1,
      'checkpoint_every_steps': 5,
      'schedule.drops': (),
      'model.batch_norm.group': 0,
      'num_devices': 1,
      **fields,
    }
  )
  return config


@pytest.fixture(scope='module')
def one_device(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('one')
  state = train.train_and_evaluate(config_of(data_dir), workdir)
  return workdir, state


@pytest.mark.parametrize('devices', [2, 4])
def test_devices_agree_on_moments(data_dir, one_device, tmp_path, devices):
  workdir, expected = one_device
  config = config_of(data_dir, num_devices=devices)
  state = train.train_and_evaluate(config, tmp_path)
  for ours, theirs in zip(
    trial.rows(tmp_path), trial.rows(workdir), strict=True
  ):
    assert ours['loss'] == pytest.approx(theirs['loss'], rel=1e-4)
  assert jax.tree.leaves(state.batch_stats)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    state.batch_stats,
    expected.batch_stats,
  )


def test_moments_are_saved_and_resumed_bit_for_bit(
  data_dir, one_device, tmp_path
):
  workdir, expected = one_device
  train.train_and_evaluate(config_of(data_dir, train_steps=5), tmp_path)
  state = train.train_and_evaluate(config_of(data_dir), tmp_path)
  runs.assert_same(state, expected)
  network = alexnet_jax.load(tmp_path)
  runs.assert_same(
    network.run.plan.get_state(
      network.variables, network.run.by_tower.variables
    )['batch_stats'],
    expected.batch_stats,
  )
  # Evaluation takes the running moments, those of the checkpoint.
  config = files.evaluation_config(tmp_path, {})
  loss = evaluate.evaluate_run(config, tmp_path)['loss']
  last = [r for r in trial.rows(workdir) if r['split'] == 'validation'][-1]
  assert loss == pytest.approx(last['loss'], rel=1e-6)
  images = np.zeros((3, 32, 32, 3), np.uint8)
  assert network.predict(images).shape == (3, len(tiny.CLASSES))
  assert network.features(images, 'stage2/block1').shape == (3, 16, 16, 8)
  with pytest.raises(errors.UserError, match="'conv9' does not exist.*stage2"):
    network.features(images, 'conv9')


def test_weights_leave_and_come_back_by_torchvision_s_names(
  one_device, tmp_path
):
  run = trained.load(str(one_device[0]), {'num_devices': 1})
  path = tmp_path / 'a.safetensors'
  export.export_weights(run, path, 'torchvision')
  import_weights.import_run(run.config, path, tmp_path / 'run')
  back = trained.load(str(tmp_path / 'run'), {'num_devices': 1})
  runs.assert_same(*jax.device_get((back.variables, run.variables)))
  with pytest.raises(errors.UserError, match='give --names=torchvision'):
    export.export_weights(run, path, 'plain')
  for name in ('lenet5', 'googlenet'):
    models.set_network(run.config, name)
    with pytest.raises(errors.UserError, match='no counterpart in torchvision'):
      torchvision.from_variables(run.config.model, {})


def test_a_step_that_is_not_finite_moves_no_moments(data_dir):
  config = config_of(data_dir)
  data = prepare.open_or_prepare(config.data)
  inputs = preprocessing.from_statistics(data, config.data)
  program = build_run(config, inputs, data.num_examples('train'))
  state = train_step.create_train_state(config)
  expected = state.batch_stats
  kernel = np.full_like(state.params['head']['kernel'], np.inf)
  state.params['head'] = {**state.params['head'], 'kernel': kernel}
  batch = next(
    pipeline.train_batches(
      data, config.data, seed=0, batch_size=16, start_step=0, end_step=1
    )
  )
  state, _ = program.train_step(
    program.put_state(state),
    program.plan.put_batch(batch),
    program.put_everywhere(np.float32(1)),
  )
  assert int(state.first_nonfinite_step) == 1
  runs.assert_same(state.batch_stats, expected)


def test_fine_tuning_takes_over_moments(data_dir, one_device, tmp_path):
  workdir, expected = one_device
  config = config_of(data_dir, train_steps=0, num_epochs=1e-6)
  config.init_from = str(workdir)
  config.optimizer.rate_multipliers['stage1/block1'] = 0.0
  state = train.train_and_evaluate(config, tmp_path)
  frozen = ('stage1', 'block1', 'conv1', 'kernel')
  ours, theirs = state.params, expected.params
  for key in frozen:
    ours, theirs = ours[key], theirs[key]
  np.testing.assert_array_equal(ours, theirs)
  with pytest.raises(AssertionError):
    runs.assert_same(state.params['head'], expected.params['head'])


def test_every_head_of_googlenet_follows_the_classes():
  config = config_lib.base()
  models.set_network(config, 'googlenet')
  like = train_step.abstract_train_state(config).params
  assert fine_tune._heads(config, like) == {'head', 'aux1', 'aux2'}


@pytest.mark.parametrize(
  'fields, complaint',
  [
    ({'model.towers': 2}, 'resnet20_cifar has one column'),
    ({'data.channels': 1}, 'have colours'),
    ({'model.name': 'resnet'}, "model.name='resnet' does not exist"),
    ({'optimizer.rate_multipliers': {'conv7': 1.0}}, "'conv7'.*no parameter"),
    ({'data.channels': 1, 'data.color_noise': 'paper'}, 'no colours'),
  ],
)
def test_what_does_not_fit_is_refused(data_dir, tmp_path, fields, complaint):
  config = config_of(data_dir)
  for name, value in fields.items():
    group, _, field = name.partition('.')
    with config[group].ignore_type():
      config[group][field] = value
  with pytest.raises(errors.UserError, match=complaint):
    train.train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_small_images_are_refused_by_name(data_dir, tmp_path):
  config = config_of(data_dir)
  models.set_network(config, 'vgg16')
  config.data.crop_size = 16
  with pytest.raises(errors.UserError, match='data.crop_size is too small'):
    train.train_and_evaluate(config, tmp_path / 'run')


def test_every_kind_of_network_is_described():
  for name in ('lenet5', 'vgg16', 'googlenet', 'resnet18', 'efficientnet_b0'):
    config = config_lib.base()
    models.set_network(config, name)
    config.data.crop_size = 32 if name.startswith('lenet') else 224
    *_, head, total = describe.describe(config).splitlines()
    assert head.startswith('| head | 1000 |')
    params = train_step.abstract_train_state(config).params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f'{count:,}' in total


@pytest.mark.parametrize('channels, warns', [(1, False), (3, True)])
def test_grey_pictures_in_a_network_for_colours_are_said(
  caplog, channels, warns
):
  config = config_lib.base()
  config.data.channels = channels
  prepared = types.SimpleNamespace(is_grey=True, directory='d')
  validate.check_channels(config, prepared)
  assert ('equal colours' in caplog.text) == warns


def test_grey_pictures_lose_two_equal_colours():
  config = lenet_caffe.get_config('mnist')
  assert (config.data.channels, config.data.crop_size) == (1, 28)
