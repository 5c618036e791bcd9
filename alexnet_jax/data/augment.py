"""The random draws of training (paper section 4.1) and evaluation's views.

Order, crops and flips are drawn on the host, where images are decoded; colour
noise on the device. Each draw is a function of (seed, purpose, place of the
example in the run), so it depends on no worker, device or restart.
"""

import functools
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data import preprocessing

NOISE_STD = 0.1  # of alpha, paper section 4.1


def random_key(seed: int, purpose: str) -> jax.Array:
  """The key of one kind of draw in a run."""
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


class Draws(NamedTuple):
  """What is drawn on the host for b examples.

  Attributes:
    records: [b], which record each is.
    corners: [b, 2] of int32, (top, left) of its crop.
    flips: [b] of bool, whether it is mirrored.
  """

  records: np.ndarray
  corners: np.ndarray
  flips: np.ndarray


def no_draws(rows: np.ndarray) -> Draws:
  """Whole images of the records `rows` [b]."""
  count = len(rows)
  return Draws(rows, np.zeros((count, 2), np.int32), np.zeros(count, bool))


@functools.lru_cache(maxsize=2)
def _draw_epoch(seed: int, epoch: int, count: int, margin: int) -> Draws:
  """All draws of an epoch: 0.2 s for 1.28 million images."""

  def generator(purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, zlib.crc32(purpose.encode())])

  corners = generator('crop').integers(0, margin + 1, (count, 2), np.int32)
  flips = generator('flip').random(count) < 0.5
  return Draws(generator('order').permutation(count), corners, flips)


def draw(seed: int, places: np.ndarray, count: int, margin: int) -> Draws:
  """Draws order, crops and flips.

  Each epoch is a permutation of the records; corners are uniform over
  0..margin both ways (CHM), half of the examples are mirrored.

  Args:
    seed: of the run.
    places: [b] of places in the run.
    count: N, records of the training set.
    margin: pixels by which an image is larger than its crop.
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
  process: preprocessing.Preprocessing,
  kind: str,
) -> jax.Array:
  """Adds multiples of the principal components of colour, once per image.

  'paper' (section 4.1) adds P (alpha * lambda) with the covariance's
  eigenvalues lambda, which only make sense on [0, 1] pixels (FB). 'source' has
  their square roots on the 0-255 scale and divides the image by 1 + 0.1, so
  that its scale matches that of evaluation (CHM, CC2).

  Args:
    images: [N, H, W, 3], the mean subtracted, on the 0-255 scale.
    key: the purpose's random key.
    index: [N], each example's place in the run.
    process: has the eigenvalues and eigenvectors.
    kind: 'paper' or 'source'.

  Returns:
    [N, H, W, 3].
  """

  def draw(i: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, i), (3,))

  alpha = NOISE_STD * jax.vmap(draw)(index)  # [N, 3]
  if kind == 'paper':
    strength = 255 * (process.eigenvalues / 255**2)
  else:
    strength = jnp.sqrt(process.eigenvalues)
  noise = (alpha * strength) @ process.eigenvectors.T  # [N, 3], RGB
  images = images + noise[:, None, None, :]
  return images / (1 + NOISE_STD) if kind == 'source' else images


def views(images: jax.Array, crop_size: int, count: int) -> list[jax.Array]:
  """The patches that evaluation averages over (paper section 4.1).

  Args:
    images: [N, S, S, 3].
    crop_size: side of a patch.
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
