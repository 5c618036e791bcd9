"""Random draws of training (paper section 4.1) and views of evaluation.

Order, crops and flips are drawn on the host, where images are decoded; colour
noise is drawn on the device. Each draw is a function of the seed, the purpose
and the example's index in the run. So workers, devices and restarts do not
change it.
"""

import functools
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data import preprocessing as preprocessing_lib

NOISE_STD = 0.1  # of alpha, paper section 4.1


def random_key(seed: int, purpose: str) -> jax.Array:
  """Returns the random key for one purpose, such as 'dropout'."""
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


class Draws(NamedTuple):
  """Random choices for b examples, made on the host.

  Attributes:
    records: [b], the number of each example's record.
    corners: [b, 2] of int32, (top, left) of each crop.
    flips: [b] of bool, whether each crop is mirrored.
  """

  records: np.ndarray
  corners: np.ndarray
  flips: np.ndarray


def no_draws(rows: np.ndarray) -> Draws:
  """Returns the Draws that leave the records `rows` [b] as they are."""
  count = len(rows)
  return Draws(rows, np.zeros((count, 2), np.int32), np.zeros(count, bool))


@functools.lru_cache(maxsize=2)
def _draw_epoch(seed: int, epoch: int, count: int, margin: int) -> Draws:
  """Draws for a whole epoch, which takes 0.2 s for 1.28 million images."""

  def generator(purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, zlib.crc32(purpose.encode())])

  corners = generator('crop').integers(0, margin + 1, (count, 2), np.int32)
  flips = generator('flip').random(count) < 0.5
  return Draws(generator('order').permutation(count), corners, flips)


def draw(seed: int, places: np.ndarray, count: int, margin: int) -> Draws:
  """Draws order, crops and flips.

  Each epoch is a permutation of the records. Corners are uniform over
  0..margin in both directions (CHM), and half of the examples are mirrored.

  Args:
    seed: Seed of the run.
    places: [b], indices of the examples in the run.
    count: Number of training records, N.
    margin: Number of pixels by which an image is larger than its crop.
  """
  parts = []
  for epoch in np.unique(places // count):
    inside = places[places // count == epoch] % count
    whole = _draw_epoch(seed, int(epoch), count, margin)
    parts.append([array[inside] for array in whole])
  return Draws(*map(np.concatenate, zip(*parts, strict=True)))


def color_noise(
  images: jax.Array,
  key: jax.Array,
  index: jax.Array,
  preprocessing: preprocessing_lib.Preprocessing,
  kind: str,
) -> jax.Array:
  """Adds random multiples of the principal components of colour to images.

  'paper' (section 4.1) adds P (alpha * lambda) with the covariance's
  eigenvalues lambda, which only make sense on [0, 1] pixels (FB). 'source'
  takes their square roots on the 0-255 scale and divides the image by 1 + 0.1,
  so that its scale matches that of evaluation (CHM, CC2).

  Args:
    images: [N, H, W, 3], mean-subtracted images on the 0-255 scale.
    key: Random key of this purpose.
    index: [N], indices of the examples in the run.
    preprocessing: Preprocessing that has the eigenvalues and eigenvectors.
    kind: 'paper' or 'source'.

  Returns:
    [N, H, W, 3], with one draw per image.
  """

  def draw_alpha(i: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, i), (3,))

  alpha = NOISE_STD * jax.vmap(draw_alpha)(index)  # [N, 3]
  if kind == 'paper':
    strength = 255 * (preprocessing.eigenvalues / 255**2)
  else:
    strength = jnp.sqrt(preprocessing.eigenvalues)
  noise = (alpha * strength) @ preprocessing.eigenvectors.T  # [N, 3], RGB
  images = images + noise[:, None, None, :]
  return images / (1 + NOISE_STD) if kind == 'source' else images


def views(images: jax.Array, crop_size: int, count: int) -> list[jax.Array]:
  """Cuts the patches that evaluation averages over (paper section 4.1).

  Args:
    images: [N, S, S, 3], stored images.
    crop_size: Side of a patch, c.
    count: 1 for the centre; 10 for centre, corners and their mirror images.

  Returns:
    `count` arrays [N, c, c, 3].
  """
  far = images.shape[1] - crop_size
  middle = far // 2
  corners = [(0, 0), (0, far), (far, 0), (far, far)]
  places = [(middle, middle), *(corners if count == 10 else [])]
  patches = [images[:, y : y + crop_size, x : x + crop_size] for y, x in places]
  if count == 10:
    patches += [patch[:, :, ::-1] for patch in patches]
  return patches
