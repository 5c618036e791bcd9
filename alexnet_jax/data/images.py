"""Pictures as TensorFlow sees them: decoded, scaled, stored, cropped.

Every decoder here is the accurate one. TensorFlow's default is a faster
inverse DCT whose pixels differ from everybody else's by up to 20 levels.
"""

import tensorflow as tf

_DCT = 'INTEGER_ACCURATE'
_QUALITY = 95


def decode(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes JPEG, PNG, BMP or the first frame of a GIF.

  Grey and CMYK pictures become RGB, transparency is dropped, and a rotation
  in EXIF is ignored, as the tools of 2012 did.

  Args:
    encoded: the bytes of a file, whatever its name ends in.

  Returns:
    [H, W, 3] of uint8.
  """
  return tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT),
    lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
  )


def encode(pixels: tf.Tensor) -> tf.Tensor:
  """Encodes [S, S, 3] of uint8 as a JPEG of quality 95.

  Colour has half the resolution (4:2:0), the default of OpenCV, which
  cuda-convnet2's make-data encoded with (CC2), and of Pillow.
  """
  return tf.io.encode_jpeg(pixels, quality=_QUALITY, chroma_downsampling=True)


def decode_crop(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
  """Decodes (top, left, height, width) of a JPEG, and no more than it must.

  The pixels are those of the decoded whole, but for a few on the border:
  there, colour is not interpolated with neighbours beyond it.
  """
  return tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=_DCT)


def resize_and_crop(image: tf.Tensor, size: int) -> tf.Tensor:
  """The central square, scaled to `size` (paper section 2).

  Area averaging shrinks and bicubic interpolation enlarges, as cuda-convnet2's
  make-data did (CC2). The square is cut out first, so that a banner costs no
  more than its centre; the paper's order differs by half a pixel at most.

  Args:
    image: [H, W, 3] of uint8.
    size: pixels.

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


def color_products(image: tf.Tensor) -> tf.Tensor:
  """Sums over all pixels of the products of two colours.

  Args:
    image: [H, W, 3] of uint8, up to 33,000 pixels wide.

  Returns:
    [3, 3] of int64: exact.
  """
  planes = tf.unstack(tf.cast(image, tf.int32), axis=-1)

  def total(i: int, j: int) -> tf.Tensor:
    of_rows = tf.reduce_sum(planes[i] * planes[j], axis=1)
    return tf.reduce_sum(tf.cast(of_rows, tf.int64))

  sums = {(i, j): total(i, j) for i in range(3) for j in range(i, 3)}
  return tf.stack(
    [[sums[min(i, j), max(i, j)] for j in range(3)] for i in range(3)]
  )
