"""Features and nearest images against numpy in float64."""

import json

import numpy as np
import pytest

from alexnet_jax import errors, trained
from alexnet_jax.analysis import feature_file, features, retrieval
from tests import applied, tiny

COUNT = tiny.COUNTS['train']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('run')
  config, params = applied.train_tiny(directory)
  return directory, config, params


def load(directory, num_devices=1, name='run'):
  return trained.load(
    str(directory / name),
    {'num_devices': num_devices, 'data.dir': str(directory)},
  )


@pytest.mark.parametrize('num_devices', [1, 4])
def test_features_are_the_networks(run, num_devices):
  directory, config, params = run
  network = load(directory, num_devices)
  images = applied.images(directory, 'validation')  # 21: do not divide
  logits, kept = applied.apply(directory, config, params, 'validation')
  layer = features.last_hidden(network.config.model)
  assert layer == 'fc7'
  made = features.extract(network, images, layer)
  assert made.shape == (21, 32)
  # The head reads them, so that they give the logits.
  head = params['fc8']
  expected = made.astype(np.float64) @ head['kernel'] + head['bias']
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  for name, part, towers in (
    ('conv2', features.OUTPUT, kept['conv2_output'][0]),
    ('conv2', features.MAPS, kept['conv2']['__call__'][0]),
    ('fc8', features.OUTPUT, [logits]),
    ('fc8', features.MAPS, [logits]),
  ):
    np.testing.assert_allclose(
      features.extract(network, images, name, part),
      np.concatenate(towers, axis=-1),
      rtol=1e-5,
      atol=1e-5,
    )


def brute_force(network, directory, queries):
  made, wanted = (
    features.extract(network, images, 'fc7').astype(np.float64)
    for images in (applied.images(directory, 'train'), queries)
  )
  distances = np.linalg.norm(wanted[:, None] - made, axis=-1)  # [Q, N]
  order = np.argsort(distances, axis=1, kind='stable')
  return order, np.take_along_axis(distances, order, axis=1)


SPREADS = [(1, 7), (1, 64), (4, 8), (4, 22)]


def unique(found):
  """With one number for all twins: see `retrieval.nearest` on ties."""
  return np.where(np.isin(found, applied.TWINS), applied.TWINS[0], found)


@pytest.mark.parametrize('num_devices,batch_size', SPREADS)
def test_neighbours_are_brute_forces(run, num_devices, batch_size):
  directory, *_ = run
  network = load(directory, num_devices)
  queries = applied.images(directory, 'validation')[:5]
  order, distances = brute_force(network, directory, queries)
  found = retrieval.nearest(
    network,
    network.open_data(),
    queries,
    count=COUNT + 2,
    batch_size=batch_size,
  )
  records, rest = np.split(found.records, [COUNT], axis=1)
  np.testing.assert_array_equal(unique(records), unique(order))
  np.testing.assert_allclose(found.distances[:, :COUNT], distances, rtol=1e-5)
  assert (rest == -1).all()
  assert np.isinf(found.distances[:, COUNT:]).all()


@pytest.mark.parametrize('num_devices,batch_size', SPREADS)
def test_ties_go_to_the_lower_record(run, tmp_path, num_devices, batch_size):
  directory, *_ = run
  network = load(directory, num_devices)
  prepared, path = network.open_data(), tmp_path / 'train.npy'
  queries = applied.images(directory, 'validation')[:3]
  wanted = features.extract(network, queries, 'fc7').astype(np.float64)
  rng = np.random.default_rng(0)
  made = rng.normal(size=(9, 32)).astype(np.float32)
  made = made[rng.integers(9, size=COUNT)]  # each about seven times
  about = feature_file.identity(network, prepared, 'fc7', 'train')
  with feature_file.FeatureFile(path, about).writer() as writer:
    writer.append(made)
  found = retrieval.nearest(
    network, prepared, queries, count=40, batch_size=batch_size, path=path
  )
  distances = np.linalg.norm(wanted[:, None] - made, axis=-1)
  order = np.argsort(distances, axis=1, kind='stable')[:, :40]
  np.testing.assert_array_equal(found.records, order)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_a_file_gives_the_same_without_the_network(
  run, num_devices, tmp_path, monkeypatch
):
  directory, *_ = run
  network = load(directory, num_devices)
  prepared, path = network.open_data(), tmp_path / 'new' / 'train.npy'
  queries = applied.images(directory, 'validation')[:5]

  def nearest(batch_size):
    return retrieval.nearest(
      network, prepared, queries, batch_size=batch_size, path=path
    )

  first = nearest(16)
  kept = np.load(path)
  assert kept.dtype == np.float32
  images = applied.images(directory, 'train')
  expected = features.extract(network, images, 'fc7')
  np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)
  about = json.loads(path.with_suffix('.npy.json').read_text())
  assert (about['layer'], about['count']) == ('fc7', COUNT)

  monkeypatch.setattr(features, 'batches', None)  # would not do
  second = nearest(22)
  np.testing.assert_array_equal(first.records, second.records)
  np.testing.assert_allclose(first.distances, second.distances, rtol=1e-6)


def test_only_complete_files_of_the_same_thing_are_read(run, tmp_path):
  directory, *_ = run
  network, older = load(directory), load(directory, name='run@5')
  prepared, path = network.open_data(), tmp_path / 'train.npy'
  queries = applied.images(directory, 'validation')[:2]
  about = feature_file.identity(network, prepared, 'fc7', 'train')
  file = feature_file.FeatureFile(path, about)
  with pytest.raises(RuntimeError), file.writer() as writer:
    writer.append(np.zeros((3, 32), np.float32))
    raise RuntimeError('killed')
  assert not path.exists()
  found = retrieval.nearest(network, prepared, queries, path=path)
  again = retrieval.nearest(network, prepared, queries, path=path)
  np.testing.assert_array_equal(found.records, again.records)
  for other, layer, split in (
    (older, '', 'train'),
    (network, 'fc6', 'train'),
    (network, '', 'validation'),
  ):
    with pytest.raises(errors.UserError, match='something else'):
      retrieval.nearest(
        other, prepared, queries, layer=layer, split=split, path=path
      )
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(errors.UserError, match='damaged'):
    retrieval.nearest(network, prepared, queries, path=path)


def test_mistakes_are_sentences(run, tmp_path):
  directory, *_ = run
  network = load(directory, 4)
  prepared = network.open_data()
  queries = applied.images(directory, 'validation')[:1]
  for arguments, match in (
    ({'layer': 'conv9'}, 'conv9'),
    ({'batch_size': 3}, 'batch_size=3'),
    ({'path': tmp_path / 'x.txt'}, r'end in \.npy'),
  ):
    with pytest.raises(errors.UserError, match=match):
      retrieval.nearest(network, prepared, queries, **arguments)
