"""Networks that ship with the package, by name."""

import pathlib

import numpy as np
import pytest

import alexnet_jax
from alexnet_jax import errors, paths
from alexnet_jax.data import images, sources
from alexnet_jax.tools import curves
from alexnet_jax.train import train_and_evaluate
from configs import fine_tune
from tests import tiny

ROOT = pathlib.Path(alexnet_jax.__file__).parent / 'pretrained'
NAMES = ('cifar10', 'imagenette', 'quickstart')


@pytest.mark.parametrize('name', NAMES)
def test_a_network_is_whole_and_has_a_card(name):
  run = alexnet_jax.load(f'pretrained:{name}', views=1)
  size = run.config.data.image_size
  pixels = np.zeros((1, size, size, 3), np.uint8)
  np.testing.assert_allclose(run.predict(pixels).sum(), 1, rtol=1e-5)
  assert run.class_names == run.readable_names or name == 'imagenette'
  card = (ROOT / name / 'README.md').read_text()
  for heading in ('Data', 'Command', 'Error', 'Limits'):
    assert f'\n## {heading}' in card


def test_they_are_small_and_no_others():
  found = [path for path in ROOT.rglob('*') if path.is_file()]
  assert {path.parent.name for path in found} == set(NAMES)
  assert sum(path.stat().st_size for path in found) < 10 * 2**20


def test_quickstarts_network_knows_the_shapes():
  run = alexnet_jax.load('pretrained:quickstart', views=1)
  source = sources.open_source('shapes')
  drawn = list(source.examples('validation', 0).take(60))
  pixels = [
    images.resize_and_crop(images.decode(example['image']), 96).numpy()
    for example in drawn
  ]
  labels = [int(example['label']) for example in drawn]
  assert list(source.class_names) == run.class_names
  assert np.mean(run.predict(pixels).argmax(axis=1) != labels) < 0.05


def test_the_name_works_wherever_a_run_is_read():
  config = fine_tune.get_config('pretrained:quickstart:shapes')
  assert config.init_from == 'pretrained:quickstart'
  assert config.data.name == 'shapes'
  assert config.data.image_size == 96
  assert list(curves.name_runs(['pretrained:quickstart'])) == ['quickstart']


@pytest.mark.parametrize('name', ['', 'alexnet', '../data', 'cifar10@7'])
def test_others_are_refused_with_the_names_that_there_are(name):
  choice = ', '.join(f'pretrained:{name}' for name in NAMES)
  with pytest.raises(errors.UserError, match=f'choose from {choice}'):
    paths.of_run('workdir', f'pretrained:{name}')


def test_they_are_not_written_and_have_one_step():
  config = tiny.get_config('data')
  with pytest.raises(errors.UserError, match='init_from=pretrained:cifar10'):
    train_and_evaluate(config, 'pretrained:cifar10')
  with pytest.raises(errors.UserError, match='eval.step=7: .* only'):
    alexnet_jax.load('pretrained:cifar10@7')
