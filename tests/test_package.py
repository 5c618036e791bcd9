"""What the installed package promises: `alexnet_jax.load`, and its files."""

import pathlib
import shutil
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
import tensorflow as tf
from packaging import requirements, utils

import alexnet_jax
from alexnet_jax import errors, train_step
from alexnet_jax.data import images, preprocessing
from alexnet_jax.workdir import checkpoints, files
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]
CROP, MARGIN = 28, 2
SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir with checkpoints of steps 5 and 10, config and parameters."""
  workdir = tmp_path_factory.mktemp('run')
  config, rng = tiny.get_config(str(workdir)), np.random.default_rng(0)
  inputs = preprocessing.Preprocessing(
    mean_image=rng.uniform(0, 255, SHAPE).astype(np.float32),
    eigenvalues=np.ones(3, np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
    scale=np.float32(64),
    crop_size=np.int32(CROP),
  )
  files.write_inputs(workdir, inputs, list(tiny.CLASSES))
  states = {}
  with checkpoints.Checkpointer(workdir) as checkpointer:
    for step in (5, 10):
      config.seed = step
      states[step] = train_step.create_train_state(config)
      extra = {'preprocessing': inputs.digest()}
      checkpointer.save(step, states[step], extra)
  files.write_config(workdir, config, {})
  return workdir, config, {step: x.params for step, x in states.items()}


@pytest.fixture(scope='module')
def loaded(run):
  return alexnet_jax.load(run[0])


def draw(count, shape=SHAPE):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (count, *shape)).astype(np.uint8)


def test_probabilities_are_numpys(run, loaded):
  workdir, config, params = run
  pixels = draw(9)
  expected = views.mean_probabilities(config, params[10], workdir, pixels, 10)
  assert np.ptp(expected, axis=0).min() > 0.01
  # Batches of 4, 4 and 1; a batch that is not full; a single image.
  for actual in (
    loaded.predict(pixels, batch_size=4),
    loaded.predict(pixels[:3]),
    loaded.predict(pixels[:1]),
  ):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected[: len(actual)], rtol=1e-5)
  assert loaded.class_names == list(tiny.CLASSES)
  assert loaded.config.model.towers == 2
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params[10])


def layer_outputs(run, step, pixels):
  """Returns what Flax keeps of the layers' outputs, all towers together."""
  workdir, config, params = run
  inside = slice(MARGIN, MARGIN + CROP)
  with np.load(workdir / 'preprocessing.npz') as arrays:
    inputs = pixels[:, inside, inside] - arrays['mean_image'][inside, inside]
  logits, kept = train_step.create_model(config).apply(
    {'params': params[step]}, inputs / 64, mutable=['intermediates']
  )
  outputs = {
    name.removesuffix('_output'): np.concatenate(towers, axis=-1)
    for name, (towers,) in kept['intermediates'].items()
  }
  return outputs | {'fc8': logits}


def test_features_are_flaxs(run, loaded):
  pixels = draw(9)
  expected = layer_outputs(run, 10, pixels)
  for layer in ('conv2', 'fc7', 'fc8'):
    actual = loaded.features(pixels, layer, batch_size=4)
    np.testing.assert_allclose(actual, expected[layer], rtol=1e-5, atol=1e-5)


def test_an_older_checkpoint_on_several_devices(run):
  older = alexnet_jax.load(f'{run[0]}@5', num_devices=0)
  assert older.plan.num_devices == 4
  pixels = draw(5)
  expected = layer_outputs(run, 5, pixels)['conv2']
  # An odd batch size does not divide into the two shards.
  actual = older.features(pixels, 'conv2', batch_size=3)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_newest_checkpoint_may_go_before_it_is_read(
  run, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  shutil.copytree(run[0], workdir)
  restore = checkpoints.Checkpointer.restore

  def restore_late(*arguments):
    if (workdir / 'checkpoints/10').exists():  # it has been listed
      (workdir / 'checkpoints/10').rename(workdir / 'checkpoints/15')
    return restore(*arguments)

  monkeypatch.setattr(checkpoints.Checkpointer, 'restore', restore_late)
  assert alexnet_jax.load(workdir).step == 15
  with pytest.raises(errors.UserError, match=r'has \[5, 15\]'):
    alexnet_jax.load(f'{workdir}@10')
  # A damaged one that nothing replaces is named.
  shutil.rmtree(workdir / 'checkpoints/15/state')
  with pytest.raises(errors.UserError, match='checkpoints/15'):
    alexnet_jax.load(workdir)


@pytest.mark.parametrize('name', ['run@home', 'run@', 'run@5'])
def test_a_directory_whose_name_has_an_at_is_itself(run, tmp_path, name):
  (tmp_path / 'run').mkdir()
  shutil.copytree(run[0], tmp_path / name)
  assert alexnet_jax.load(tmp_path / name).step == 10
  assert alexnet_jax.load(f'{tmp_path / name}@5').step == 5


def test_files_and_arrays_are_scaled_as_prepare_does(loaded, tmp_path):
  pixels = draw(3, (40, 50, 3))
  paths = [tmp_path / f'{i}.png' for i in range(3)]
  for path, image in zip(paths, pixels, strict=True):
    path.write_bytes(tf.io.encode_png(image).numpy())
  scaled = [images.resize_and_crop(x, tiny.SIZE).numpy() for x in pixels]
  expected = loaded.predict(np.stack(scaled))
  for given in (pixels, list(pixels), paths, map(str, paths)):
    np.testing.assert_array_equal(loaded.predict(given), expected)
  first = loaded.predict(str(paths[0]))
  np.testing.assert_allclose(first, expected[:1], rtol=1e-5)


def test_no_images_have_no_probabilities(loaded):
  assert loaded.predict([]).shape == (0, len(tiny.CLASSES))
  assert loaded.features(draw(0), 'fc7').shape == (0, 32)


def test_mistakes_are_sentences(run, loaded, tmp_path):
  text = tmp_path / 'text.jpg'
  text.write_text('no picture')
  for call, message in (
    (lambda: alexnet_jax.load(tmp_path), 'holds no run'),
    (lambda: alexnet_jax.load(f'{run[0]}@7'), r'has \[5, 10\]'),
    (lambda: alexnet_jax.load(run[0], views=3), 'choose from 1, 10'),
    (lambda: loaded.features(draw(1), 'fc9'), 'choose from conv1, .*, fc8'),
    (lambda: loaded.predict(draw(1) / 255), r'\[32, 32, 3\] of float64; give'),
    (lambda: loaded.predict(draw(1)[0]), r'images\[0\] is an array \[32, 3\]'),
    (lambda: loaded.predict([tmp_path / 'no.jpg']), 'no.jpg: No such file'),
    (lambda: loaded.predict([text]), 'cannot be read as an image'),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()


@pytest.mark.parametrize(
  'option, value, fit',
  [
    ('jax_enable_x64', True, False),
    ('jax_disable_jit', True, False),
    ('jax_numpy_rank_promotion', 'raise', 'allow'),
  ],
)
def test_options_of_jax_that_do_not_fit_are_named(run, option, value, fit):
  try:
    jax.config.update(option, value)
    match = rf'jax.config.{option}=.*update\({option!r}, {fit!r}\)'
    with pytest.raises(errors.UserError, match=match):
      alexnet_jax.load(run[0])
    assert getattr(jax.config, option) == value  # it is the user's
  finally:
    jax.config.update(option, fit)


def test_import_waits_for_no_library():
  program = 'import sys, alexnet_jax; sys.exit("numpy" in sys.modules)'
  subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)


def test_the_wheel_has_all_files_of_the_package():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  package_data = project['tool']['setuptools']['package-data']
  listed = {
    path.relative_to(ROOT)
    for package, patterns in package_data.items()
    for pattern in patterns
    for path in ROOT.joinpath(*package.split('.')).glob(pattern)
  }
  found = {
    path.relative_to(ROOT)
    for path in (ROOT / 'alexnet_jax').rglob('*')
    if path.is_file() and path.suffix not in ('.py', '.pyc')
  }
  assert listed == found


def _read_requirements(name):
  lines = (ROOT / name).read_text().splitlines()
  texts = [line.partition('#')[0].strip() for line in lines]
  return [requirements.Requirement(text) for text in texts if text]


def test_constraints_are_in_the_ranges():
  pins = {
    utils.canonicalize_name(pin.name): str(pin.specifier).removeprefix('==')
    for pin in _read_requirements('constraints.txt')
  }
  for name in ('requirements.txt', 'requirements-test.txt'):
    for needed in _read_requirements(name):
      version = pins[utils.canonicalize_name(needed.name)]
      assert needed.specifier.contains(version), needed
