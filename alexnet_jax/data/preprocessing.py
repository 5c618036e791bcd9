"""Preprocessing from stored pixels to the network's input.

A run writes its `preprocessing.npz` before step 0. Evaluation, prediction and
fine-tuning read that file, never the statistics of the data at hand.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from alexnet_jax import atomic, errors
from alexnet_jax.data import records

_REMEDY = 'put that file back into the workdir'


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """Mean image, scale and principal components of colour.

  Attributes:
    mean_image: [S, S, C] of float32, on the 0-255 scale. With C = 1, the
      network reads grey pictures.
    eigenvalues: [3] of float32, of the RGB covariance on the 0-255 scale,
      largest first.
    eigenvectors: [3, 3] of float32, one per column, in the same order.
    scale: [] or [3] (red, green, blue) of float32. Inputs are divided by it
      after the mean is subtracted.
    crop_size: Side of the network's input, in pixels.
  """

  mean_image: np.ndarray
  eigenvalues: np.ndarray
  eigenvectors: np.ndarray
  scale: np.ndarray
  crop_size: np.ndarray

  def __call__(
    self,
    images: jax.Array,
    noise: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> jax.Array:
    """Turns pixels into inputs.

    The centre of the mean image is subtracted, whatever the crop's place
    (CHM).

    Args:
      images: [N, c, c, 3] of uint8.
      noise: Function applied after the mean and before the scale, in training.

    Returns:
      [N, c, c, C] of float32.
    """
    margin = (self.mean_image.shape[0] - int(self.crop_size)) // 2
    end = margin + int(self.crop_size)
    mean = self.mean_image[margin:end, margin:end]
    images = images[..., : mean.shape[-1]]  # colours of a grey one are alike
    return noise(images.astype(jnp.float32) - mean) / self.scale

  def digest(self) -> str:
    """Returns a SHA-256 of all arrays, with their names, types and shapes."""
    sha = hashlib.sha256()
    for name, array in dataclasses.asdict(self).items():
      sha.update(f'{name} {array.dtype} {array.shape} '.encode())
      sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()

  def check_digest(self, expected: str) -> None:
    """Raises UserError if a checkpoint was trained with other preprocessing.

    Args:
      expected: Digest that the checkpoint holds.
    """
    if self.digest() != expected:
      raise errors.UserError(
        'preprocessing.npz is not the one that the checkpoint was trained '
        f'with; {_REMEDY}.'
      )

  def save(self, path: pathlib.Path) -> None:
    """Writes the arrays to a file, `preprocessing.npz`."""
    with atomic.replacing(path) as file:
      np.savez(file, **dataclasses.asdict(self))


def load(path: pathlib.Path) -> Preprocessing:
  """Reads the Preprocessing that `save` wrote.

  Raises:
    UserError: If the file is damaged.
  """
  with errors.damage_as_user_error(path, _REMEDY), np.load(path) as arrays:
    return Preprocessing(**arrays)


def from_statistics(
  prepared: records.PreparedSet, data: ml_collections.ConfigDict
) -> Preprocessing:
  """Derives Preprocessing from a training set's statistics.

  Args:
    prepared: Prepared set.
    data: Config of the data, `config.data`, with `scale` and so on.
  """
  statistics = prepared.statistics()
  eigenvalues, eigenvectors = np.linalg.eigh(statistics['rgb_covariance'])
  mean = statistics['mean_image'][..., : data.channels]
  return Preprocessing(
    mean_image=np.float32(mean * data.subtract_mean),
    # Grey pictures have one component; rounding can push others below zero.
    eigenvalues=np.maximum(eigenvalues[::-1], 0).astype(np.float32),
    eigenvectors=eigenvectors[:, ::-1].astype(np.float32),
    scale=np.asarray(data.scale, np.float32),
    crop_size=np.int32(data.crop_size),
  )
