"""Runs for other programs, and back: alexnet_jax.tools.export."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors

from alexnet_jax import errors, evaluate, train, train_step, trained
from alexnet_jax.tools import export, import_weights
from alexnet_jax.weights import torch_layout, weight_files
from configs import alexnet, alexnet_2012, alexnet_bn, cifar10_lrn, fine_tune
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]
MEAN = np.array([120.0, 110.0, 100.0])
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
ONE_VIEW = {'num_devices': 1, 'eval.views': 1}
# All that another program needs to apply the exported function.
CALL = """
import sys, jax.export, numpy as np
program = jax.export.deserialize(open('program.stablehlo', 'rb').read())
np.save('probabilities.npy', program.call(np.load('images.npy')))
assert not {'flax', 'alexnet_jax', 'tensorflow'} & set(sys.modules)
"""


def _import(config, params, directory):
  """Imports parameters from a file that says nothing but their values."""
  path, workdir = directory / 'in.safetensors', directory / 'run'
  weight_files.write(path, torch_layout.to_torch(config, params))
  import_weights.import_run(
    config,
    path,
    workdir,
    inputs='torchvision',
    mean=MEAN,
    names=list(tiny.CLASSES),
  )
  return trained.load(str(workdir), ONE_VIEW)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The tiny network's initial weights, imported from a file."""
  directory = tmp_path_factory.mktemp('run')
  tiny.prepare_tiny(directory)
  config = tiny.get_config(str(directory))
  params = train_step.create_train_state(config).params
  return _import(config, params, directory)


def _tool(name, *arguments):
  command = [sys.executable, '-m', f'alexnet_jax.tools.{name}', *arguments]
  subprocess.run(command, cwd=ROOT, check=True)


def test_an_imported_run_is_evaluated_like_any(run):
  start = train_step.create_train_state(run.config)
  jax.tree.map(np.testing.assert_array_equal, run.params, start.params)
  result = evaluate.evaluate_run(run.config, run.workdir)
  labels, probs = views.probabilities(run.config, run.params, run.workdir, 1)
  assert (result['step'], result['examples']) == (0, len(labels))
  assert result['top1_error'] == np.mean(probs.argmax(axis=1) != labels)


def test_an_imported_run_is_not_trained_on_where_it_is(run):
  with pytest.raises(errors.UserError, match='imported weights'):
    train.train_and_evaluate(run.config, run.workdir)


def test_an_imported_run_with_three_scales_is_fine_tuned(run, tmp_path):
  config = run.config.copy_and_resolve_references()
  with config.data.ignore_type():
    config.data.scale = (60.0, 61.0, 62.0)
  scaled = _import(config, jax.device_get(run.params), tmp_path)
  recipe = fine_tune.get_config(f'{scaled.workdir}:cifar10')
  recipe.data.name = 'tiny'
  recipe.model.num_classes = len(tiny.CLASSES)
  recipe.data.dir, recipe.batch_size = run.config.data.dir, 16
  recipe.train_steps, recipe.num_devices = 1, 1
  recipe.optimizer.learning_rate = 0.0
  state = train.train_and_evaluate(recipe, tmp_path / 'fine_tuned')
  jax.tree.map(np.testing.assert_array_equal, state.params, run.params)
  theirs = (scaled.workdir / 'preprocessing.npz').read_bytes()
  ours = (tmp_path / 'fine_tuned' / 'preprocessing.npz').read_bytes()
  assert ours == theirs


def test_the_program_needs_nothing_but_jax(run, tmp_path):
  output = f'--output={tmp_path}/program.stablehlo'
  _tool('export', f'--workdir={run.workdir}', output, '--views=1')
  np.save(tmp_path / 'images.npy', IMAGES)
  subprocess.run([sys.executable, '-c', CALL], cwd=tmp_path, check=True)
  expected = trained.create_predictor(run, len(IMAGES))(IMAGES)
  actual = np.load(tmp_path / 'probabilities.npy')
  np.testing.assert_allclose(np.log(actual), expected, rtol=1e-5)
  about = json.loads((tmp_path / 'program.stablehlo.json').read_text())
  assert about['class_names'] == run.class_names
  assert (about['image_size'], about['views']) == (32, 1)


def test_a_file_of_weights_in_the_workdir_is_no_small_run(run):
  path = run.workdir / 'weights.safetensors'
  export.export_weights(run, path, 'plain')
  loaded = trained.read(str(run.workdir), ONE_VIEW)
  path.unlink()
  jax.tree.map(np.testing.assert_array_equal, loaded.params, run.params)


def test_a_small_run_is_the_run_rounded_to_float16(run, tmp_path):
  small = tmp_path / 'small'
  _tool('export', f'--workdir={run.workdir}', f'--output={small}')
  loaded = trained.load(str(small), ONE_VIEW)
  expected = jax.tree.map(lambda x: np.float32(np.float16(x)), run.params)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)
  assert loaded.preprocessing.digest() == run.preprocessing.digest()
  assert (loaded.step, loaded.class_names) == (run.step, run.class_names)
  with pytest.raises(errors.UserError, match='small is in use'):
    export.export_run(run, small)
  with pytest.raises(errors.UserError, match='imported weights'):
    train.train_and_evaluate(run.config, small)
  path = small / 'weights.safetensors'
  damaged = bytearray(path.read_bytes())
  damaged[-1] ^= 1
  path.write_bytes(damaged)
  with pytest.raises(errors.UserError, match='weights.safetensors is damaged'):
    trained.load(str(small), ONE_VIEW)


def test_exported_weights_come_back_with_their_inputs_and_classes(
  run, tmp_path
):
  path, workdir = tmp_path / 'new' / 'a.safetensors', tmp_path / 'run'
  _tool(
    'export',
    f'--workdir={run.workdir}',
    f'--output={path}',
    '--names=caffe',
  )
  with safetensors.safe_open(path, 'numpy') as file:
    told = {name: json.loads(text) for name, text in file.metadata().items()}
  assert told == {
    'channel_order': 'BGR',
    'mean': MEAN[::-1].tolist(),
    'scale': [64.0] * 3,
    'crop_size': 28,
    'class_names': list(tiny.CLASSES),
  }
  _tool(
    'import_weights',
    f'--config=tests/tiny.py:{run.config.data.dir}',
    '--config.data.scale=1',
    f'--weights={path}',
    f'--workdir={workdir}',
  )
  back = trained.load(str(workdir), ONE_VIEW)
  assert back.class_names == run.class_names
  jax.tree.map(np.testing.assert_array_equal, back.params, run.params)
  np.testing.assert_array_equal(
    trained.create_predictor(back, len(IMAGES))(IMAGES),
    trained.create_predictor(run, len(IMAGES))(IMAGES),
  )


def test_weights_for_other_crops_are_refused(run, tmp_path):
  path = tmp_path / 'a.safetensors'
  export.export_weights(run, path, 'caffe')
  config = run.config.copy_and_resolve_references()
  config.data.crop_size -= 1
  with pytest.raises(errors.UserError, match='with crops of 28 .* takes 27'):
    import_weights.import_run(config, path, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_each_dropouts_factor_moves_into_the_next_weights():
  config = tiny.get_config('')
  config.model.conv4.update({'after': ('act', 'dropout'), 'keep': 0.8})
  shapes = train_step.abstract_train_state(config).params
  params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
  arrays = torch_layout.to_torch(config, params)
  for layer, factor in (('conv4', 1), ('conv5', 0.8), ('fc6', 1), ('fc7', 0.5)):
    np.testing.assert_allclose(arrays[f'{layer}.weight'], factor)


def _apart(config):
  config.model.fc7.gather = False


def _dropout_first(config):
  config.model.fc6.after = ('dropout', 'act')


@pytest.mark.parametrize(
  'config, change, named',
  [
    (cifar10_lrn, lambda config: None, 'model.local3.kind=local'),
    (alexnet, _apart, 'model.fc7.gather=False'),
    (alexnet_bn, lambda config: None, 'batch_norm in model.conv1.after'),
    (alexnet_2012, _dropout_first, 'dropout followed by act before fc7'),
  ],
)
def test_what_has_no_counterpart_is_refused(config, change, named):
  config = config.get_config()
  change(config)
  params = train_step.abstract_train_state(config).params
  with pytest.raises(errors.UserError, match=named):
    jax.eval_shape(lambda x: torch_layout.to_torch(config, x), params)


def test_mistakes_are_sentences(tmp_path):
  with pytest.raises(errors.UserError, match='names=plain'):
    torch_layout.to_torchvision_names({'conv1.weight': np.zeros(1)})
  with pytest.raises(errors.UserError, match='none of the suffixes'):
    weight_files.write(tmp_path / 'a.npz', {})
  with pytest.raises(OSError, match='missing.safetensors'):
    weight_files.read(tmp_path / 'missing.safetensors')
