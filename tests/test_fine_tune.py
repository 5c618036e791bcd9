"""Runs that start from another's weights, on the tiny set."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
import tensorflow as tf

from alexnet_jax import errors, train, train_step, trained
from alexnet_jax import fine_tune as fine_tune_lib
from configs import fine_tune
from tests import tiny

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')


@pytest.fixture(scope='module')
def origin(tmp_path_factory):
  """A run of ten steps; beside it a folder of pictures of other classes."""
  directory = tmp_path_factory.mktemp('origin')
  tiny.prepare_tiny(directory)
  config = tiny.get_config(str(directory))
  state = train.train_and_evaluate(config, directory / 'run')
  rng = np.random.default_rng(0)
  for split in ('train', 'validation'):
    for name in ('bright', 'dark'):
      folder = directory / 'pictures' / split / name
      folder.mkdir(parents=True)
      for i in range(8):
        shape = (tiny.SIZE, tiny.SIZE, 3)
        picture = rng.integers(0, 100, shape) + 100 * (name == 'bright')
        encoded = tf.io.encode_png(picture.astype(np.uint8)).numpy()
        (folder / f'{i}.png').write_bytes(encoded)
  return directory, state.params


def config_of(directory, data=None, **fields):
  """On the origin's data by default, with its head."""
  if data is None:
    config = tiny.get_config(str(directory))
    config.init_from = f'{directory}/run'
  else:
    config = fine_tune.get_config(f'{directory}/run@10:{data}')
    config.data.dir = str(directory)
    config.num_devices = 1
    config.batch_size = 16
  config.train_steps = 1
  config.update_from_flattened_dict(fields)
  return config


def changed_layers(params, others):
  return [
    name
    for name in LAYERS
    if not all(
      jax.tree.leaves(jax.tree.map(np.array_equal, params[name], others[name]))
    )
  ]


def test_other_classes_get_a_new_head(origin, tmp_path):
  directory, params = origin
  frozen = {'optimizer.learning_rate': 0.0}
  config = config_of(directory, f'folder={directory}/pictures', **frozen)
  state = train.train_and_evaluate(config, tmp_path / 'run')
  drawn = train_step.create_train_state(config).params
  head = {'fc8': params['fc8']}  # of three classes, not two
  assert changed_layers(state.params | head, params) == []
  assert changed_layers(state.params, drawn) == list(LAYERS[:-1])
  assert state.params['fc8']['kernel'].shape == (16 * 2, 2)
  inputs = 'preprocessing.npz'
  theirs = (directory / 'run' / inputs).read_bytes()
  assert (tmp_path / 'run' / inputs).read_bytes() == theirs
  run = trained.load(f'{tmp_path}/run', {})
  assert run.class_names == ['bright', 'dark']


def test_same_classes_keep_the_head_and_rates_are_by_layer(origin, tmp_path):
  directory, params = origin
  rates = {f'optimizer.rate_multipliers.{name}': 0.0 for name in LAYERS[:5]}
  state = train.train_and_evaluate(config_of(directory, **rates), tmp_path)
  assert changed_layers(state.params, params) == list(LAYERS[5:])


def test_layers_can_be_drawn_anew(origin, tmp_path):
  directory, params = origin
  fields = {'init_fresh': 'conv4,fc8', 'optimizer.learning_rate': 0.0}
  state = train.train_and_evaluate(config_of(directory, **fields), tmp_path)
  assert changed_layers(state.params, params) == ['conv4', 'fc8']


def test_a_run_goes_on_without_its_origin(origin, tmp_path):
  directory, _ = origin
  copy = tmp_path / 'copy'
  shutil.copytree(directory / 'run', copy)
  config = config_of(directory, init_from=str(copy), train_steps=3)
  expected = train.train_and_evaluate(config, tmp_path / 'undisturbed')
  killed = config_of(directory, init_from=str(copy), train_steps=3)
  killed.log_every_steps = 2
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('alexnet_jax.workdir.metrics_file.MetricsWriter.write', _die)
    with pytest.raises(KeyboardInterrupt):
      train.train_and_evaluate(killed, tmp_path / 'killed')
  shutil.rmtree(copy)
  state = train.train_and_evaluate(killed, tmp_path / 'killed')
  assert changed_layers(state.params, expected.params) == []


def _die(*_):
  raise KeyboardInterrupt


@pytest.mark.parametrize(
  'fields, complaint',
  [
    ({'model.conv2.features': 7}, r'conv2/kernel is \[2, 5, 5, 4, 6\]'),
    # The head is taken over, for the classes are the same.
    (
      {'model.fc7.features': 8, 'init_fresh': 'fc7'},
      r'fc8/kernel is \[32, 3\]',
    ),
    ({'init_fresh': 'conv9'}, "'conv9', which is no layer"),
    ({'init_from': '', 'init_fresh': 'fc7'}, 'init_from is empty'),
    ({'data.scale': 32.0}, 'data.scale=32.0 .* with 64.0'),
    ({'data.crop_size': 24}, 'data.crop_size=24 .* with 28'),
    ({'init_from': 'nowhere'}, 'nowhere holds no run'),
  ],
)
def test_what_does_not_fit_is_refused(origin, tmp_path, fields, complaint):
  directory, _ = origin
  with pytest.raises(errors.UserError, match=complaint):
    config = config_of(directory, **fields)
    train.train_and_evaluate(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_the_head_keeps_its_rate_and_others_have_a_tenth(origin, tmp_path):
  directory, _ = origin
  stored = json.loads((directory / 'run' / 'config.json').read_text())
  stored['optimizer']['rate_multipliers'].update({'fc8': 3.0, 'conv1': 2.0})
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  optimizer = fine_tune.get_config(f'{tmp_path}:shapes').optimizer
  rates = {
    name: optimizer.learning_rate * optimizer.rate_multipliers[name]
    for name in ('conv1', 'conv2', 'fc8')
  }  # of the run: .02, .01 and .03
  assert rates == pytest.approx({'conv1': 2e-3, 'conv2': 1e-3, 'fc8': 3e-2})


@pytest.mark.parametrize('argument', ['', 'runs/a', 'nowhere:shapes'])
def test_the_config_says_what_it_needs(argument):
  with pytest.raises(errors.UserError, match='write configs|holds no run'):
    fine_tune.get_config(argument)


def test_moments_are_new_with_their_layer_or_where_the_origin_has_none():
  config = tiny.get_config('')
  config.init_fresh = 'conv1'
  moments = [f'conv{i}_batch_norm' for i in (1, 2, 3)]
  drawn, stored = (
    {
      'params': dict.fromkeys(('conv1', 'conv2'), value),
      'batch_stats': dict.fromkeys(names, value),
    }
    for value, names in (('new', moments), ('old', moments[:2]))
  )
  origin = types.SimpleNamespace(
    variables=stored, class_names=[], workdir='run', step=3
  )
  assert fine_tune_lib.first_variables(config, drawn, origin, []) == {
    'params': {'conv1': 'new', 'conv2': 'old'},
    'batch_stats': dict(zip(moments, ('new', 'old', 'new'), strict=True)),
  }
