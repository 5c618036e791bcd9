"""The training set's mean image and colour covariance."""

import numpy as np


class PixelSums:
  """Sums of whole numbers over pixels: exact, so in any order.

  Attributes:
    count: how many images were added.
    pixels: [S, S, 3] of int64, the sum of the images.
    products: [3, 3] of int64, of products of two colours over all pixels.
  """

  def __init__(self, size: int):
    self.count = 0
    self.pixels = np.zeros((size, size, 3), np.int64)
    self.products = np.zeros((3, 3), np.int64)

  def add(self, image: np.ndarray, products: np.ndarray) -> None:
    """Adds one image.

    Args:
      image: [S, S, 3] of uint8.
      products: [3, 3], see `images.color_products`.
    """
    self.count += 1
    self.pixels += image
    self.products += products

  def mean_image(self) -> np.ndarray:
    """[S, S, 3] of float64."""
    return self.pixels / self.count

  def rgb_covariance(self) -> np.ndarray:
    """[3, 3] of float64, over all pixels of all images."""
    num_pixels = self.count * self.pixels[..., 0].size
    mean = self.pixels.sum(axis=(0, 1)) / num_pixels
    return self.products / num_pixels - np.outer(mean, mean)

  def statistics(self) -> dict[str, np.ndarray]:
    """What a prepared set keeps of its training pixels."""
    return {
      'mean_image': self.mean_image(),
      'rgb_covariance': self.rgb_covariance(),
    }
