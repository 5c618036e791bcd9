"""Decoding, scaling and cropping against formulas, and against Pillow."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

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


def _paint(inks: np.ndarray) -> np.ndarray:
  """Returns the colours of inks [2, 2, 4] in squares of 8 pixels."""
  paint = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
  return paint.repeat(8, axis=0).repeat(8, axis=1)


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
  return {
    'cmyk.jpg': (CMYK, _paint(INKS)),
    # Nothing says that it is of Adobe, and so its inks are not inverted.
    'cmyk_not_of_adobe.jpg': (CMYK[:2] + CMYK[18:], _paint(255 - INKS)),
    'grey.jpg': (grey, grey_pixels.repeat(3, axis=2)),
    'turned.jpg': (_turned(plain), plain_pixels),
    # ILSVRC-2012 has one PNG under such a name.
    'misnamed.JPEG': (pictures.png(noise[..., :3]), noise[..., :3]),
    'transparent.png': (pictures.png(noise), noise[..., :3]),
    '16_bit.png': (pictures.png(fine), fine / 257),
    '16_bit_grey.png': (
      pictures.png(fine[..., :1]),
      fine[..., :1].repeat(3, axis=2) / 257,
    ),
    # The pixel in the middle of a banner is all that its square holds.
    'high.png': (pictures.png(ramp[:, None]), np.full(3, 127)),
    'wide.png': (pictures.png(ramp[None]), np.full(3, 127)),
    'dot.png': (pictures.png(noise[:1, :1, :3]), noise[0, 0, :3]),
  }


def test_odd_pictures_of_a_folder(tmp_path):
  odd = _odd_pictures()
  files = {f'train/a/{name}': encoded for name, (encoded, _) in odd.items()}
  for path in ('train/b/any.png', 'val/a/any.png'):
    files[path] = odd['dot.png'][0]
  pictures.write(tmp_path, files)
  source = sources.open_source(f'folder={tmp_path}')
  prepared = prepare.prepare(source, str(tmp_path), SIZE, 'raw')
  found = pictures.stored(prepared, 'train').astype(np.float64)
  for name, pixels in zip(sorted(odd), found[:-1], strict=True):
    assert np.abs(pixels - odd[name][1]).max() <= 1, name


# The modes of each format that Pillow can write.
MODES = {
  'bmp': '1 L P RGB RGBA',
  'gif': '1 L LA P RGB RGBA',
  'jpg': 'L RGB CMYK',
  'png': '1 L LA P RGB RGBA',
  'tif': '1 L LA P PA RGB RGBA CMYK YCbCr LAB',
  'webp': 'L RGB RGBA',
}


def _drawing(mode: str) -> Image.Image:
  """Draws a picture in which colours and transparency change."""
  if mode == 'P':
    return _drawing('RGB').quantize(16)
  if mode in ('RGBA', 'LA', 'PA'):
    waves = pictures.smooth(0, SIZE, SIZE, channels=4)
    return Image.fromarray(waves).convert(mode)
  waves = pictures.smooth(0, SIZE, SIZE)
  # Pillow gets to LAB by other means, and its pixels may be any.
  return Image.fromarray(waves, 'LAB' if mode == 'LAB' else None).convert(mode)


def _saved(mode: str, suffix: str, **options) -> bytes:
  file = io.BytesIO()
  extension = Image.registered_extensions()[f'.{suffix}']
  _drawing(mode).save(file, extension, **options)
  return file.getvalue()


def _all_modes() -> dict[str, bytes]:
  """Returns files of every format, mode and kind of transparency."""
  files = {
    f'{mode}.{suffix}': _saved(mode, suffix)
    for suffix, modes in MODES.items()
    for mode in modes.split()
  }
  for bits in (1, 2, 4):
    files[f'bits{bits}.png'] = _saved('P', 'png', bits=bits)
  for kind, value in (('index', 3), ('table', bytes(range(0, 256, 16)))):
    files[f'{kind}.png'] = _saved('P', 'png', transparency=value)
  files['index.gif'] = _saved('P', 'gif', transparency=3)
  files['level.png'] = _saved('L', 'png', transparency=100)
  files['colour.png'] = _saved('RGB', 'png', transparency=(1, 2, 3))
  files['progressive.jpg'] = _saved('RGB', 'jpg', progressive=True)
  for subsampling in (0, 1, 2):
    files[f'{subsampling}.jpg'] = _saved('RGB', 'jpg', subsampling=subsampling)
  for way in ('tiff_lzw', 'tiff_adobe_deflate', 'jpeg', 'packbits'):
    files[f'{way}.tif'] = _saved('RGB', 'tif', compression=way)
  files['group4.tif'] = _saved('1', 'tif', compression='group4')
  files['exact.webp'] = _saved('RGBA', 'webp', lossless=True, exact=True)
  more = {'save_all': True, 'append_images': [_drawing('L').convert('RGBA')]}
  for suffix in ('gif', 'png', 'tif', 'webp'):
    files[f'several.{suffix}'] = _saved('RGBA', suffix, **more)
  return files


def test_every_mode_has_the_pixels_of_pillow(tmp_path):
  files = _all_modes()
  for split in ('train', 'val'):
    root = tmp_path / split
    pictures.write(root, {f'a/{name}': files[name] for name in files})
    pictures.write(root, {'b/any.png': files['RGB.png']})
  source = sources.open_source(f'folder={tmp_path}')
  prepared = prepare.prepare(source, str(tmp_path), SIZE, 'raw')
  train, held_out = (
    pictures.stored(prepared, split) for split in ('train', 'validation')
  )
  for row, name in enumerate(sorted(files)):
    with Image.open(io.BytesIO(files[name])) as image:
      expected = np.asarray(image.convert('RGB'))
    assert expected.std() > 5
    read = images.read(tmp_path / 'train' / 'a' / name, SIZE)
    for found in (train[row], held_out[row], read):
      np.testing.assert_array_equal(found, expected, err_msg=name)


def _fault(tmp_path, encoded: bytes) -> str:
  """Returns what `read` says of a file that it refuses."""
  path = tmp_path / 'picture'
  path.write_bytes(encoded)
  message = pictures.refusal(images.read, path, SIZE)
  assert message.startswith(f'{path} cannot be read as an image (')
  return message


@pytest.mark.parametrize('suffix', MODES)
def test_a_file_that_was_cut_is_refused(tmp_path, suffix):
  encoded = _saved('RGB', suffix)
  for count in (0, 1, 5, 9, len(encoded) // 3, len(encoded) * 2 // 3):
    _fault(tmp_path, encoded[:count])


@pytest.mark.parametrize('kind', [np.uint16, np.int32, np.float32])
def test_a_tiff_of_more_than_8_bits_of_grey_is_refused(tmp_path, kind):
  file = io.BytesIO()
  Image.fromarray(np.full((SIZE, SIZE), 1000, kind)).save(file, 'TIFF')
  assert 'TIFF of mode ' in _fault(tmp_path, file.getvalue())


def test_other_files_and_huge_pictures_are_refused(tmp_path):
  assert 'BMP, GIF, TIFF or WEBP' in _fault(tmp_path, b'<html>')
  huge = bytearray(_saved('L', 'gif'))
  huge[6:10] = b'\xff' * 4  # a width and a height of 65,535
  assert '4294836225 pixels' in _fault(tmp_path, bytes(huge))


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
