"""Pictures in TensorFlow: decoding, scaling, cropping and encoding.

The decoder of JPEGs is the accurate one. TensorFlow's default is a faster
inverse DCT whose pixels differ from everybody else's by up to 20 levels.
"""

from __future__ import annotations

import io
import itertools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image as pillow

from alexnet_jax import errors
from alexnet_jax.data.lazy import tf

SUFFIXES = (
  '.bmp',
  '.gif',
  '.jfif',
  '.jpe',
  '.jpeg',
  '.jpg',
  '.png',
  '.tif',
  '.tiff',
  '.webp',
)
# Lowest and highest side of a stored picture.
SIZES = (1, 4096)
_PNG = b'\x89PNG\r\n\x1a\n'
# Formats that TensorFlow decodes wrongly, or not at all.
_OF_PILLOW = ('BMP', 'GIF', 'TIFF', 'WEBP')
_FORMATS = ('JPEG', 'PNG', *_OF_PILLOW)
_DCT = 'INTEGER_ACCURATE'
_QUALITY = 95
# Up to twice that size, where Pillow raises an error, a picture is just large.
warnings.simplefilter('ignore', pillow.DecompressionBombWarning)
# A path, or pixels [H, W, 3] of uint8.
Image = str | os.PathLike | np.ndarray


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes a picture, or the first one of a file that has several.

  TensorFlow decodes JPEGs and PNGs, Pillow all else. All become RGB.
  Transparency is dropped. A rotation in EXIF is ignored, as the tools of 2012
  did. See docs/data.md.

  Args:
    encoded: Bytes of a file; its name may have any suffix.

  Returns:
    [H, W, 3] of uint8.

  Raises:
    tf.errors.InvalidArgumentError or, outside of a graph, ValueError: If it is
      no picture, see `fault`.
  """

  def jpeg() -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT)

  def png() -> tf.Tensor:
    return tf.io.decode_png(encoded, channels=3)

  def other() -> tf.Tensor:
    return tf.numpy_function(_decode_other, [encoded], tf.uint8)

  is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
  pairs = [(tf.io.is_jpeg(encoded), jpeg), (is_png, png)]
  return tf.ensure_shape(tf.case(pairs, other), (None, None, 3))


def _decode_other(encoded: bytes) -> np.ndarray:
  try:
    return _decode_with_pillow(encoded, _OF_PILLOW)
  except Exception as error:  # of a damaged file, Pillow raises almost any
    raise ValueError(str(error)) from error  # TensorFlow: invalid argument


def _decode_with_pillow(encoded: bytes, formats: tuple[str, ...]) -> np.ndarray:
  with pillow.open(io.BytesIO(encoded), formats=formats) as image:
    image.load()
    if image.mode.startswith(('I', 'F')):  # Pillow would clip it at 255
      raise ValueError(
        f'a {image.format} of mode {image.mode} has no range that is known; '
        'save it with 8 bits a colour'
      )
    return np.asarray(image.convert('RGB'))


def fault(encoded: bytes) -> str:
  """Returns why a file cannot be decoded, to quote in a sentence."""
  if not encoded:
    return 'it is empty'
  try:
    _decode_with_pillow(encoded, _FORMATS)
  except pillow.UnidentifiedImageError:
    return f'it is no readable {", ".join(_FORMATS[:-1])} or {_FORMATS[-1]}'
  except Exception as error:
    return errors.first_line(error)
  return 'it is damaged or of a rare kind'  # Pillow reads it


def encode(pixels: tf.Tensor) -> tf.Tensor:
  """Encodes [S, S, 3] of uint8 as a JPEG of quality 95.

  Colour has half the resolution (4:2:0), the default of OpenCV, which
  cuda-convnet2's make-data encoded with (CC2), and of Pillow.
  """
  return tf.io.encode_jpeg(pixels, quality=_QUALITY, chroma_downsampling=True)


def decode_crop(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
  """Decodes a window of a JPEG without decoding the rest.

  The pixels equal those of the whole decoded image, except for a few on the
  border: there, colour is not interpolated with neighbours outside the window.

  Args:
    jpeg: Bytes of a JPEG file.
    window: (top, left, height, width).

  Returns:
    [height, width, 3] of uint8.
  """
  return tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=_DCT)


def resize_and_crop(image: tf.Tensor, size: int) -> tf.Tensor:
  """Scales an image's central square to `size` (paper section 2).

  Area averaging shrinks and bicubic interpolation enlarges, as cuda-convnet2's
  make-data did (CC2). The square is cut out first, so that a banner costs no
  more than its centre. The paper's order (scale first) differs by half a pixel
  at most.

  Args:
    image: [H, W, 3] of uint8.
    size: Side of the result, in pixels.

  Returns:
    [size, size, 3] of uint8.
  """
  shape = tf.shape(image)[:2]
  side = tf.reduce_min(shape)
  top, left = tf.unstack((shape - side) // 2)
  square = image[top : top + side, left : left + side]

  def resize(method: str) -> tf.Tensor:
    return tf.image.resize(square[None], (size, size), method)[0]

  def shrink() -> tf.Tensor:
    return tf.cast(resize('area') + 0.5, tf.uint8)

  def enlarge() -> tf.Tensor:  # bicubic interpolation overshoots
    return tf.saturate_cast(tf.round(resize('bicubic')), tf.uint8)

  image = tf.case(
    [(side > size, shrink), (side < size, enlarge)], lambda: square
  )
  return tf.ensure_shape(image, (size, size, 3))


def read(path: str | os.PathLike, size: int) -> np.ndarray:
  """Reads a picture and scales it as `prepare` does.

  Args:
    path: File of a picture.
    size: Side of the result, in pixels.

  Returns:
    [size, size, 3] of uint8.

  Raises:
    UserError: If the file cannot be read as an image.
  """
  try:
    encoded = pathlib.Path(path).read_bytes()
    return resize_and_crop(decode(encoded), size).numpy()
  except OSError as error:
    raise errors.UserError(
      f'{path}: {error.strerror}; give the path of a picture.'
    ) from error
  except (tf.errors.OpError, ValueError) as error:
    raise errors.UserError(
      f'{path} cannot be read as an image ({fault(encoded)})'
    ) from error


def scale_all(
  images: Iterable[Image], size: int, batch_size: int
) -> Iterator[np.ndarray]:
  """Scales pictures as `prepare` does, some at a time.

  Args:
    images: Paths of files, or an array [N, H, W, 3] of uint8.
    size: Side of the results, in pixels.
    batch_size: Largest number of pictures at a time.

  Yields:
    [B, size, size, 3] of uint8; one empty batch if there are no pictures.

  Raises:
    UserError: If a picture cannot be read or has a wrong shape or type.
  """
  if isinstance(images, str | os.PathLike):
    images = [images]
  scaled = (_scale(number, image, size) for number, image in enumerate(images))
  batch = list(itertools.islice(scaled, batch_size))
  yield np.array(batch, np.uint8).reshape(-1, size, size, 3)
  while batch := list(itertools.islice(scaled, batch_size)):
    yield np.stack(batch)


def _scale(number: int, image: Image, size: int) -> np.ndarray:
  if isinstance(image, str | os.PathLike):
    return read(image, size)
  pixels = np.asarray(image)
  is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
  if not is_rgb or pixels.dtype != np.uint8:
    raise errors.UserError(
      f'images[{number}] is an array {list(pixels.shape)} of {pixels.dtype}; '
      'give paths of files, or an array [N, H, W, 3] of uint8.'
    )
  return resize_and_crop(pixels, size).numpy()


def color_products(image: tf.Tensor) -> tf.Tensor:
  """Sums the products of every two colours over all pixels.

  Args:
    image: [H, W, 3] of uint8, up to 33,000 pixels wide.

  Returns:
    [3, 3] of int64, exact sums.
  """
  pixels = tf.cast(image, tf.int32)
  of_rows = tf.matmul(pixels, pixels, transpose_a=True)  # [H, 3, 3]
  return tf.reduce_sum(tf.cast(of_rows, tf.int64), axis=0)
