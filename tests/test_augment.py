"""Colour noise, mean subtraction and views against float64 arithmetic."""

import dataclasses
import pathlib

import ml_collections
import numpy as np
import pytest

from alexnet_jax import errors
from alexnet_jax.data import augment, preprocessing, records

# Standard deviations along the principal components of ImageNet's colours on
# the 0-255 scale, as in cuda-convnet2's input_meta, largest first.
STDEVS = np.array([121.7801, 37.0939, 19.7208])
VECTORS = np.array(
  [
    [-0.56351, -0.71258, 0.41796],
    [-0.57618, -0.02354, -0.81698],
    [-0.59200, 0.70120, 0.39731],
  ]
)
# What multiplies the normal draws of standard deviation .1, on 0-255. The
# paper's eigenvalues are of pixels in [0, 1], see Facebook's .2175 .0188 .0045.
STRENGTH = {'paper': 255 * (STDEVS / 255) ** 2, 'source': STDEVS}
DIVISOR = {'paper': 1.0, 'source': 1.1}
KEY = augment.random_key(0, 'color_noise')


def _preprocessing(**fields) -> preprocessing.Preprocessing:
  """Mean 0 and scale 1 with ImageNet's colours, unless told otherwise."""
  fields = {
    'mean_image': np.zeros((8, 8, 3), np.float32),
    'eigenvalues': (STDEVS**2).astype(np.float32),
    'eigenvectors': VECTORS.astype(np.float32),
    'scale': np.float32(1),
    'crop_size': np.int32(6),
  } | fields
  return preprocessing.Preprocessing(**fields)


def _noise(index, kind: str, preprocess=None, key=KEY) -> np.ndarray:
  """Returns [N, 3] as float64: what a black image of one pixel becomes."""
  images = np.zeros((len(index), 1, 1, 3), np.float32)
  index, preprocess = (
    np.asarray(index, np.uint32),
    preprocess or _preprocessing(),
  )
  noisy = augment.color_noise(images, key, index, preprocess, kind)
  return np.asarray(noisy, np.float64)[:, 0, 0]


def _alphas(index) -> np.ndarray:
  """Returns the normal draws: noise whose components all have strength 1."""
  ones = np.ones(3, np.float32)
  unit = _preprocessing(
    eigenvalues=ones, eigenvectors=np.eye(3, dtype=np.float32)
  )
  return _noise(index, 'source', unit) * 1.1


@pytest.mark.parametrize('kind', ['paper', 'source'])
def test_noise_is_the_formula(kind):
  rng = np.random.default_rng(0)
  images = rng.uniform(-120, 120, (7, 4, 5, 3)).astype(np.float32)
  index = np.arange(7, dtype=np.uint32)
  noisy = augment.color_noise(images, KEY, index, _preprocessing(), kind)
  # P (alpha * strength), the same for all pixels of an image.
  noise = np.stack([VECTORS @ (a * STRENGTH[kind]) for a in _alphas(index)])
  assert np.abs(noise).max() > 5
  expected = (images + noise[:, None, None]) / DIVISOR[kind]
  np.testing.assert_allclose(noisy, expected, rtol=1e-5, atol=1e-4)


def test_noise_has_the_covariance_of_colours():
  draws = 40_000
  noise = _noise(np.arange(draws), 'paper')
  # On the principal components, in units of .1 strength, noise is white.
  white = noise @ VECTORS / (0.1 * STRENGTH['paper'])
  # Five standard errors.
  assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(draws)
  error = white.T @ white / draws - np.eye(3)
  assert np.abs(error).max() < 5 * np.sqrt(2 / draws)
  # Normal: a fourth moment of 3, with a variance of 96 / draws.
  assert np.abs((white**4).mean(axis=0) - 3).max() < 5 * np.sqrt(96 / draws)


def test_noise_depends_on_seed_purpose_and_index_only():
  index = np.array([5, 1_000_000_007, 0, 2**32 - 1], np.uint32)
  noise = {
    (seed, purpose): _noise(
      index, 'paper', key=augment.random_key(seed, purpose)
    )
    for seed in (0, 1)
    for purpose in ('color_noise', 'dropout')
  }
  assert len(np.unique(list(noise.values()))) == 4 * 4 * 3
  expected = noise[0, 'color_noise']
  reversed_noise = _noise(index[::-1], 'paper')[::-1]
  np.testing.assert_allclose(reversed_noise, expected, rtol=1e-5, atol=1e-5)
  alone = _noise(index[1:2], 'paper')
  np.testing.assert_allclose(alone, expected[1:2], rtol=1e-5, atol=1e-5)


def _from_pixels(directory: pathlib.Path, pixels: np.ndarray, **data):
  """Returns Preprocessing of known training pixels [N, S, S, 3]."""
  flat = pixels.reshape(-1, 3)
  np.savez(
    directory / 'statistics.npz',
    mean_image=pixels.mean(axis=0),
    rgb_covariance=np.cov(flat.T, bias=True),
  )
  prepared = records.PreparedSet(directory, {})
  fields = {'scale': 1.0, 'crop_size': 6, 'channels': 3, 'subtract_mean': True}
  data = ml_collections.ConfigDict(fields | data)
  return preprocessing.from_statistics(prepared, data)


def test_principal_components_of_known_pixels(tmp_path):
  # Colours made of independent components of known strength.
  rng = np.random.default_rng(0)
  pixels = 128 + rng.normal(0, STDEVS / 4, (30, 8, 8, 3)) @ VECTORS.T
  found = _from_pixels(tmp_path, pixels)
  values, vectors = np.linalg.eig(np.cov(pixels.reshape(-1, 3).T, bias=True))
  order = np.argsort(-values)
  assert (np.diff(found.eigenvalues) < 0).all()
  np.testing.assert_allclose(found.eigenvalues, values[order], rtol=1e-5)
  cosines = np.sum(found.eigenvectors * vectors[:, order], axis=0)
  np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-6)
  # And they are the components that went in, to the sampling error.
  assert np.abs(found.eigenvectors.T @ VECTORS).diagonal().min() > 0.99


def test_grey_pictures_have_one_component_and_finite_noise(tmp_path):
  grey = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1))
  pixels = np.repeat(grey, 3, axis=-1).astype(np.float64)
  found = _from_pixels(tmp_path, pixels)
  assert found.eigenvalues[0] == pytest.approx(3 * grey.var(), rel=1e-6)
  assert (found.eigenvalues[1:] >= 0).all()
  assert np.isfinite(_noise(np.arange(4), 'source', found)).all()


def test_a_network_for_grey_images_gets_one_channel(tmp_path):
  grey = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1))
  pixels = np.repeat(grey, 3, axis=-1).astype(np.float64)
  fields = {'channels': 1, 'crop_size': 8, 'scale': 256.0}
  for subtract_mean in (True, False):
    preprocess = _from_pixels(
      tmp_path, pixels, subtract_mean=subtract_mean, **fields
    )
    inputs = preprocess(pixels[:4].astype(np.uint8))
    expected = (grey[:4] - subtract_mean * grey.mean(axis=0)) / 256
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
  prepared = records.PreparedSet(tmp_path, {})
  assert prepared.is_grey


# An image of 8 has its centre at 1 for crops of 6 and 5, like the centre view.
@pytest.mark.parametrize(
  'crop_size, scale', [(6, 64.0), (5, 64.0), (8, (58.0, 57.0, 32.0))]
)
def test_the_centre_of_the_mean_image_is_subtracted(tmp_path, crop_size, scale):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (10, 8, 8, 3)).astype(np.float64)
  preprocess = _from_pixels(tmp_path, pixels, scale=scale, crop_size=crop_size)
  start = {6: 1, 5: 1, 8: 0}[crop_size]
  end = start + crop_size
  images = rng.integers(0, 256, (4, crop_size, crop_size, 3), np.uint8)
  scale = np.array(scale)
  expected = (images - pixels.mean(axis=0)[start:end, start:end]) / scale
  inputs = preprocess(images)
  assert inputs.dtype == np.float32
  np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-5)
  # Noise comes between the two: on the 0-255 scale, after the mean.
  noisy = preprocess(images, noise=lambda x: 3 * x + 1)
  np.testing.assert_allclose(
    noisy, 3 * expected + 1 / scale, rtol=1e-5, atol=1e-5
  )


def test_preprocessing_survives_its_file(tmp_path):
  rng = np.random.default_rng(0)
  mean_image = rng.uniform(0, 255, (8, 8, 3)).astype(np.float32)
  saved = _preprocessing(mean_image=mean_image, scale=np.float32(0.1))
  saved.save(tmp_path / 'preprocessing.npz')
  loaded = preprocessing.load(tmp_path / 'preprocessing.npz')
  for name, array in dataclasses.asdict(saved).items():
    other = getattr(loaded, name)
    assert array.dtype == other.dtype and array.shape == other.shape
    np.testing.assert_array_equal(array, other)
  loaded.check_digest(saved.digest())


@pytest.mark.parametrize('name', dataclasses.asdict(_preprocessing()))
def test_any_other_value_has_another_digest(name):
  known = _preprocessing()
  array = np.array(getattr(known, name))
  # The smallest change there is, of the last element.
  array.view(np.uint32 if array.ndim == 0 else np.uint8).flat[-1] ^= 1
  other = dataclasses.replace(known, **{name: array})
  with pytest.raises(errors.UserError, match='preprocessing.npz'):
    other.check_digest(known.digest())


def _window(top: int, left: int, size: int, mirrored: bool) -> bytes:
  """Returns the pixels of a view, written down one by one."""
  columns = range(left, left + size)
  columns = columns[::-1] if mirrored else columns
  rows = range(top, top + size)
  pixels = [[[(n, y, x) for x in columns] for y in rows] for n in range(2)]
  return np.array(pixels).tobytes()


# The centre of 8 for crops of 5 lies at 1.5, cut off as the mean's.
@pytest.mark.parametrize('size', [6, 5])
def test_views(size):
  # Two images whose pixels hold (image, row, column).
  images = np.stack(np.mgrid[:2, :8, :8], axis=-1)
  far = 8 - size
  places = [(1, 1), (0, 0), (0, far), (far, 0), (far, far)]
  expected = [_window(*p, size, flip) for p in places for flip in (False, True)]
  found = augment.views(images, size, 10)
  assert all(view.shape == (2, size, size, 3) for view in found)
  assert sorted(view.tobytes() for view in found) == sorted(expected)
  (centre,) = augment.views(images, size, 1)
  assert centre.tobytes() == _window(1, 1, size, mirrored=False)
