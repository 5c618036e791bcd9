"""The random draws of training (paper section 4.1) and evaluation's views.

Crops and flips are drawn on the host, where images are decoded; colour noise
on the device. Each draw is keyed by (seed, purpose, index of the example in
the run), so it depends on no worker, device or restart.
"""

import zlib

import jax
import jax.numpy as jnp
import tensorflow as tf

from alexnet_jax.data import preprocessing

NOISE_STD = 0.1  # of alpha, paper section 4.1


def random_key(seed: int, purpose: str) -> jax.Array:
  """The key of one kind of draw in a run."""
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def crop_window(
  seed: int, index: tf.Tensor, image_size: int, crop_size: int
) -> tf.Tensor:
  """Draws where to crop: (top, left), each uniform over 0..S - c (CHM)."""
  key = tf.stack([_host_seed(seed, 'crop'), index])
  return tf.random.stateless_uniform(
    (2,), key, 0, image_size - crop_size + 1, tf.int32
  )


def flips(seed: int, index: tf.Tensor) -> tf.Tensor:
  """Draws whether to mirror the image, with probability a half."""
  key = tf.stack([_host_seed(seed, 'flip'), index])
  return tf.random.stateless_uniform((), key, 0, 2, tf.int32) == 1


def _host_seed(seed: int, purpose: str) -> tf.Tensor:
  return tf.constant(seed * 2**32 + zlib.crc32(purpose.encode()), tf.int64)


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
