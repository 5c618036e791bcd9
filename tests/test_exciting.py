"""Receptive fields against gradients, exciting places against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import errors, train_state, trained
from alexnet_jax.analysis import exciting, receptive_field
from configs import common
from tests import applied, tiny


def _linear_network(ceil: bool):
  """In which no gradient is zero by chance: averages, and no ReLU."""
  config = common.base()
  common.set_layers(
    config.model,
    conv1=common.conv(2, 5, stride=2, padding=(0, 3), after=('avg_pool',)),
    conv2=common.conv(
      2, 3, padding=(1, 1), gather=True, after=('spatial_norm', 'avg_pool')
    ),
    conv3=common.local(2, 3, padding=(1, 0), after=('avg_pool',)),
    fc=common.dense(3, after=()),
    top=common.head(),
  )
  config.model.update(
    {'towers': 2, 'num_classes': 3, 'activation': 'linear', 'init': 'he'}
  )
  config.model.pool.ceil = ceil
  config.model.spatial_norm.update({'size': 4, 'scale': 0.5})
  config.data.crop_size = 42
  return config


@pytest.mark.parametrize('ceil', [False, True])
def test_fields_are_where_gradients_are(ceil):
  config = _linear_network(ceil)
  params = train_state.create_train_state(config).params
  model, size = train_state.create_model(config), config.data.crop_size
  image = np.random.default_rng(0).normal(size=(1, size, size, 3))
  image = image.astype(np.float32)

  def diagonal(image, layer):
    """Sums over channels at (row i, last column - i): [side]."""
    _, kept = model.apply(
      {'params': params},
      image,
      capture_intermediates=True,
      mutable=['intermediates'],
    )
    towers = kept['intermediates'][layer]['__call__'][0]
    maps = sum(towers)[0].sum(axis=-1)
    return jnp.fliplr(maps).diagonal() if maps.ndim else maps[None]

  gradient = jax.jit(jax.jacrev(diagonal), static_argnums=1)
  for layer in ('conv1', 'conv2', 'conv3', 'fc'):
    seen = np.asarray(gradient(image, layer)).any(axis=(1, 4))  # [side, S, S]
    last = len(seen) - 1
    for i, pixels in enumerate(seen):
      for place, others in ((i, 1), (last - i, 0)):
        inside = np.flatnonzero(pixels.any(axis=others))
        expected = inside[0], inside[-1] + 1
        actual = receptive_field.interval(config.model, size, layer, place)
        assert actual == expected, (layer, place)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('run')
  config, params = applied.train_tiny(directory)
  return directory, config, params


def _expected(maps, count):
  """Of [N, H, W]: records, values and places of the `count` best images."""
  flat = maps.reshape(len(maps), -1)
  records = np.argsort(-flat.max(axis=1), kind='stable')[:count]
  places = np.divmod(flat.argmax(axis=1), maps.shape[2])
  return records, flat.max(axis=1)[records], np.stack(places, -1)[records]


@pytest.mark.parametrize('num_devices,batch_size', [(1, 7), (4, 22)])
def test_most_exciting_places_are_numpys(run, num_devices, batch_size):
  directory, config, params = run
  network = trained.load(str(directory / 'run'), {'num_devices': num_devices})
  prepared = network.open_data()
  _, kept = applied.apply(directory, config, params, 'train')
  for layer, channels in (('conv1', [0, 6]), ('conv4', [3]), ('fc7', [20])):
    found = exciting.find(
      network,
      prepared,
      layer,
      np.array(channels),
      count=4,
      batch_size=batch_size,
    )
    maps = np.concatenate(kept[layer]['__call__'][0], axis=-1)
    maps = maps.reshape(
      len(maps), *((1, 1, -1) if maps.ndim == 2 else maps.shape[1:])
    )
    for i, channel in enumerate(channels):
      records, values, places = _expected(maps[..., channel], 4)
      np.testing.assert_array_equal(found.records[i], records)
      np.testing.assert_allclose(found.values[i], values, rtol=1e-5)
      np.testing.assert_array_equal(found.places[i], places)


def test_crops_are_what_the_kernel_saw(run):
  directory, *_ = run
  network = trained.load(str(directory / 'run'), {'num_devices': 1})
  prepared = network.open_data()
  found = exciting.find(network, prepared, 'conv1', np.array([1, 5]), count=9)
  crops = exciting.crops(network, prepared, 'conv1', found)
  images = applied.images(directory, 'train')
  for i in range(2):
    for j in range(9):
      # 5 x 5 pixels around the place, cut off at the patch's border
      middle = found.places[i, j]
      (top, left), (bottom, right) = np.clip(
        [middle - 2, middle + 3], 0, applied.CROP
      )
      image = images[found.records[i, j]][2:30, 2:30]
      np.testing.assert_array_equal(crops[i][j], image[top:bottom, left:right])


def test_unknown_layers_are_named():
  model = tiny.get_config('').model
  assert exciting.num_channels(model, 'conv2') == 12
  assert exciting.num_channels(model, 'fc8') == 3
  with pytest.raises(errors.UserError, match='conv9'):
    exciting.num_channels(model, 'conv9')
