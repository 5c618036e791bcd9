"""Decoding, scaling and cropping against formulas."""

import base64

import numpy as np
import pytest
import tensorflow as tf

from alexnet_jax.data import images, prepare, sources
from tests import pictures

SIZE = 16

# Four squares of 8 pixels. Made with Pillow 13.0.0, which inverts the inks as
# Photoshop does and says so in an Adobe segment:
#   inks = INKS.astype(np.uint8).repeat(8, 0).repeat(8, 1)
#   Image.fromarray(inks, 'CMYK').save(file, 'JPEG', quality=100, optimize=True)
INKS = np.array(
  [
    [[0, 0, 0, 0], [200, 40, 0, 0]],
    [[0, 100, 200, 50], [30, 60, 90, 120]],
  ]
)
CMYK = base64.b64decode("""
  /9j/7gAOQWRvYmUAZAAAAAAA/9sAQwABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ
  EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB/8AAFAgAEAAQBEMRAE0RAFkRAEsR
  AP/EABgAAAMBAQAAAAAAAAAAAAAAAAkKCwAI/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQw
  BNAFkASwAAPwB/g/wf4P8ACN+F+zLIAD6N+De4PFAO4Fz3/9k=
""")


def _turned(jpeg: bytes) -> bytes:
  """Adds an EXIF orientation of 6 to a file: to be turned by 90 degrees."""
  entry = b'\x12\x01' + b'\x03\x00' + b'\x01\0\0\0' + b'\x06\0\0\0'
  exif = b'Exif\0\0' + b'II*\0\x08\0\0\0' + b'\x01\0' + entry + b'\0\0\0\0'
  size = (len(exif) + 2).to_bytes(2, 'big')
  return jpeg[:2] + b'\xff\xe1' + size + exif + jpeg[2:]


def _odd_pictures() -> dict[str, tuple[bytes, np.ndarray]]:
  """Returns files, and the pixels that [SIZE, SIZE, 3] of each should hold."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (SIZE, SIZE, 4), np.uint8)
  fine = rng.integers(0, 2**16, (SIZE, SIZE, 3), np.uint16)
  plain = pictures.jpeg(noise[..., :3])
  grey = pictures.jpeg(noise[..., :1])
  plain_pixels, grey_pixels = (
    tf.io.decode_jpeg(jpeg, dct_method='INTEGER_ACCURATE').numpy()
    for jpeg in (plain, grey)
  )
  ramp = np.arange(300, dtype=np.float64)[:, None] * np.ones(3) * 255 / 299
  ramp = ramp.astype(np.uint8)
  paint = (255 - INKS[..., :3]) * (255 - INKS[..., 3:]) / 255
  return {
    'cmyk.jpg': (CMYK, paint.repeat(8, axis=0).repeat(8, axis=1)),
    'grey.jpg': (grey, grey_pixels.repeat(3, axis=2)),
    'turned.jpg': (_turned(plain), plain_pixels),
    # ILSVRC-2012 has one PNG under such a name.
    'misnamed.JPEG': (pictures.png(noise[..., :3]), noise[..., :3]),
    'transparent.png': (pictures.png(noise), noise[..., :3]),
    '16_bit.png': (pictures.png(fine), fine / 257),
    # The pixel in the middle of a banner is all that its square holds.
    'high.png': (pictures.png(ramp[:, None]), np.full(3, 127)),
    'wide.png': (pictures.png(ramp[None]), np.full(3, 127)),
    'dot.png': (pictures.png(noise[:1, :1, :3]), noise[0, 0, :3]),
  }


def test_odd_pictures_of_a_folder(tmp_path):
  odd = _odd_pictures()
  files = {f'train/a/{name}': encoded for name, (encoded, _) in odd.items()}
  pictures.write(tmp_path, files | {'val/a/any.png': odd['dot.png'][0]})
  source = sources.open_source(f'folder={tmp_path}')
  prepared = prepare.prepare(source, str(tmp_path), SIZE, 'raw')
  found = pictures.stored(prepared, 'train').astype(np.float64)
  for name, pixels in zip(sorted(odd), found, strict=True):
    assert np.abs(pixels - odd[name][1]).max() <= 1, name


def _coverage(count: int, size: int) -> np.ndarray:
  """Returns [size, count]: the part of each cell that each pixel covers."""
  cell, pixel = np.arange(size)[:, None], np.arange(count)
  ratio = count / size
  low = np.maximum(cell * ratio, pixel)
  high = np.minimum((cell + 1) * ratio, pixel + 1)
  return np.maximum(high - low, 0) / ratio


@pytest.mark.parametrize('shape', [(37, 50), (50, 37), (32, 32), (16, 21)])
def test_shrinking_averages_areas(shape):
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  side = min(shape)
  top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
  square = image[top : top + side, left : left + side].astype(np.float64)
  areas = _coverage(side, SIZE)
  expected = np.einsum('yi,xj,ijc->yxc', areas, areas, square)
  result = images.resize_and_crop(tf.constant(image), SIZE).numpy()
  assert result.dtype == np.uint8
  # Half a level of rounding, and float32; the target size is kept exactly.
  assert np.abs(result - expected).max() <= (0.5 + 1e-3 if side > SIZE else 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
  """Returns Keys' kernel with a = -1/2."""
  d = np.abs(distance)
  near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * (d - 1) * (d - 2) ** 2
  return np.select([d < 1, d < 2], [near, far])


def test_enlarging_by_four_is_bicubic():
  # Of noise, so that overshoot must be clipped, not wrapped.
  image = np.random.default_rng(0).integers(0, 256, (9, 21, 3), np.uint8)
  square = image[:, 6:15].astype(np.float64)
  taps = _cubic((np.arange(36)[:, None] + 0.5) / 4 - 0.5 - np.arange(9))
  expected = np.einsum('yi,xj,ijc->yxc', taps, taps, square)
  # What borders do is not our concern.
  inner = np.s_[8:-8, 8:-8]
  assert expected[inner].min() < 0 and expected[inner].max() > 255
  result = images.resize_and_crop(tf.constant(image), 36).numpy()
  error = np.abs(result - np.clip(expected, 0, 255))
  assert error[inner].max() <= 0.5 + 1e-3


def test_crops_are_windows_of_the_decoded_whole():
  rng = np.random.default_rng(0)
  jpeg = images.encode(rng.integers(0, 256, (64, 64, 3), np.uint8))
  whole = images.decode(jpeg).numpy()
  for _ in range(20):
    top, left = rng.integers(0, 56, 2)
    height, width = rng.integers(3, 65 - max(top, left), 2)
    crop = images.decode_crop(jpeg, [top, left, height, width]).numpy()
    window = whole[top : top + height, left : left + width]
    # On the border, colour is interpolated without the neighbours beyond.
    np.testing.assert_array_equal(crop[1:-1, 1:-1], window[1:-1, 1:-1])
  everything = images.decode_crop(jpeg, [0, 0, 64, 64]).numpy()
  np.testing.assert_array_equal(everything, whole)


def test_decoding_is_the_accurate_one():
  # A grey JPEG of quality 100 rounds the 64 coefficients of a block and no
  # more: a variance of 1/12, which Parseval's theorem hands on to the pixels,
  # whose own rounding adds as much. TensorFlow's default adds 140.
  noise = np.random.default_rng(0).integers(30, 226, (64, 64, 1), np.uint8)
  jpeg = tf.io.encode_jpeg(noise, quality=100)
  error = images.decode(jpeg).numpy() - noise.astype(np.float64)
  assert error.var() < 2 / 12
