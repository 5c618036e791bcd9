"""Runs for other programs: what is refused, and the exported function."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from alexnet_jax import errors, evaluate, train, train_state, trained
from alexnet_jax.weights import convert, pretrained, publish, weight_files
from configs import alexnet, alexnet_2012, cifar10_lrn, fine_tune
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]
MEAN = np.array([120.0, 110.0, 100.0])
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
# What a program needs to apply the exported function.
CALL = """
import sys, jax.export, numpy as np
program = jax.export.deserialize(open('program.stablehlo', 'rb').read())
np.save('probabilities.npy', program.call(np.load('images.npy')))
assert not {'flax', 'alexnet_jax', 'tensorflow'} & set(sys.modules)
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The tiny network's initial weights, that came as a file."""
  directory = tmp_path_factory.mktemp('run')
  tiny.prepare_tiny(directory)
  config = tiny.get_config(str(directory))
  params = train_state.create_train_state(config).params
  weights, workdir = directory / 'a.safetensors', directory / 'run'
  weight_files.write(weights, convert.to_torch(config, params), {})
  names = list(tiny.CLASSES)
  network = pretrained.Architecture(config, MEAN)
  pretrained.import_run(network, weights, workdir, names=names)
  return trained.load(str(workdir), {'num_devices': 1, 'eval.views': 1})


def test_weights_come_back_as_they_were(run):
  start = train_state.create_train_state(run.config)
  jax.tree.map(np.testing.assert_array_equal, run.params, start.params)


def test_an_imported_run_is_evaluated_like_any(run):
  result = evaluate.evaluate_run(run.config, run.workdir)
  labels, probs = views.probabilities(run.config, run.params, run.workdir, 1)
  assert (result['step'], result['examples']) == (0, len(labels))
  assert result['top1_error'] == np.mean(probs.argmax(axis=1) != labels)


def test_an_imported_run_is_trained_on_in_another_workdir(run, tmp_path):
  config = run.config.copy_and_resolve_references()
  with pytest.raises(errors.UserError, match='imported weights'):
    train.train_and_evaluate(config, run.workdir)
  config.init_from, config.train_steps = str(run.workdir), 1
  config.optimizer.learning_rate = 0.0
  state = train.train_and_evaluate(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, run.params, state.params)
  inputs = 'preprocessing.npz'
  theirs = (run.workdir / inputs).read_bytes()
  assert (tmp_path / inputs).read_bytes() == theirs


def test_the_program_needs_nothing_but_jax(run, tmp_path):
  command = [sys.executable, '-m', 'experiments.export', '--views=1']
  output = f'--output={tmp_path}/program.stablehlo'
  workdir = f'--workdir={run.workdir}'
  subprocess.run([*command, workdir, output], cwd=ROOT, check=True)
  np.save(tmp_path / 'images.npy', IMAGES)
  subprocess.run([sys.executable, '-c', CALL], cwd=tmp_path, check=True)
  expected = evaluate.create_predictor(run)(IMAGES)
  actual = np.load(tmp_path / 'probabilities.npy')
  np.testing.assert_allclose(np.log(actual), expected, rtol=1e-5)
  about = json.loads((tmp_path / 'program.stablehlo.json').read_text())
  assert about['class_names'] == run.class_names
  assert (about['image_size'], about['views']) == (32, 1)


def test_weights_come_back_with_their_inputs_and_classes(run, tmp_path):
  path, workdir = tmp_path / 'new' / 'a.safetensors', tmp_path / 'run'
  publish.export_weights(run, path, 'caffe')
  config = run.config.copy_and_resolve_references()
  config.data.scale = 1.0
  other = pretrained.Architecture(config, np.zeros(3))
  pretrained.import_run(other, path, workdir)
  back = trained.load(str(workdir), {'num_devices': 1, 'eval.views': 1})
  assert back.class_names == run.class_names
  jax.tree.map(np.testing.assert_array_equal, back.params, run.params)
  expected = evaluate.create_predictor(run)(IMAGES)
  np.testing.assert_array_equal(
    evaluate.create_predictor(back)(IMAGES), expected
  )


def test_weights_for_other_crops_are_refused(run, tmp_path):
  path = tmp_path / 'a.safetensors'
  publish.export_weights(run, path, 'caffe')
  config = run.config.copy_and_resolve_references()
  config.data.crop_size = run.config.data.crop_size - 1
  other = pretrained.Architecture(config, np.zeros(3))
  with pytest.raises(errors.UserError, match='with crops of 28 .* takes 27'):
    pretrained.import_run(other, path, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_three_scales_are_fine_tuned_like_one(run, tmp_path):
  path, workdir = tmp_path / 'a.safetensors', tmp_path / 'run'
  config = run.config.copy_and_resolve_references()
  with config.data.ignore_type():
    config.data.scale = (60.0, 61.0, 62.0)
  arrays = convert.to_torch(config, jax.device_get(run.params))
  weight_files.write(path, arrays, {})
  names = list(tiny.CLASSES)
  network = pretrained.Architecture(config, MEAN)
  pretrained.import_run(network, path, workdir, names=names)
  recipe = fine_tune.get_config(f'{workdir}:cifar10')
  recipe.data.name = 'tiny'
  recipe.model.num_classes = len(names)
  recipe.data.dir, recipe.batch_size = run.config.data.dir, 16
  recipe.train_steps, recipe.num_devices = 1, 1
  recipe.optimizer.learning_rate = 0.0
  state = train.train_and_evaluate(recipe, tmp_path / 'fine_tuned')
  jax.tree.map(np.testing.assert_array_equal, state.params, run.params)


def test_metadata_turn_pixels_into_inputs(run, tmp_path):
  path = tmp_path / 'a.safetensors'
  publish.export_weights(run, path, 'caffe')
  _, metadata = weight_files.read(path)
  values = {name: json.loads(text) for name, text in metadata.items()}
  assert values['channel_order'] == 'BGR'
  assert values['mean'] == MEAN[::-1].tolist()
  assert values['scale'] == [64.0] * 3
  assert values['crop_size'] == 28
  assert values['class_names'] == list(tiny.CLASSES)


def _apart(config):
  config.model.fc7.gather = False


def _dropout_first(config):
  config.model.fc6.after = ('dropout', 'act')


@pytest.mark.parametrize(
  'config, change, named',
  [
    (cifar10_lrn, lambda config: None, 'model.local3.kind=local'),
    (alexnet, _apart, 'model.fc7.gather=False'),
    (alexnet_2012, _dropout_first, 'dropout is followed by act before fc7'),
  ],
)
def test_what_has_no_counterpart_is_refused(config, change, named):
  config = config.get_config()
  change(config)
  params = train_state.abstract_train_state(config).params
  with pytest.raises(errors.UserError, match=named):
    jax.eval_shape(lambda x: convert.to_torch(config, x), params)


def test_mistakes_are_sentences(tmp_path):
  with pytest.raises(errors.UserError, match='names=plain'):
    convert.to_torchvision_names({'conv1.weight': np.zeros(1)})
  with pytest.raises(errors.UserError, match='none of the suffixes'):
    weight_files.write(tmp_path / 'a.npz', {}, {})
  with pytest.raises(OSError, match='missing.pth'):
    weight_files.read(tmp_path / 'missing.pth')
