"""Preparation against float64 arithmetic, and its failures."""

import json
import pathlib

import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from alexnet_jax import errors
from alexnet_jax.data import prepare, records, sources

SIZE = 64


def _picture(seed: int, height: int, width: int, channels: int = 3):
  """A smooth picture with all grey levels: JPEG keeps it well."""
  rng = np.random.default_rng(seed)
  y, x, _ = np.mgrid[:height, :width, :1] / SIZE
  waves = rng.uniform(1, 3, (3, channels))
  waves = np.sin(waves[0] * x + waves[1] * y + 2 * waves[2])
  return (127.5 + 120 * waves).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
  return tf.io.encode_png(pixels).numpy()


def _jpeg(pixels: np.ndarray) -> bytes:
  return tf.io.encode_jpeg(
    pixels, quality=95, chroma_downsampling=False
  ).numpy()


def _source(images: list[bytes], held_out: list[bytes] | None = None, **fields):
  """A source of the given encoded pictures; picture i has label i mod 2."""
  splits = {'train': images, 'validation': held_out or images[:1]}

  def examples(split: str) -> tf.data.Dataset:
    count = len(splits[split])
    return tf.data.Dataset.from_tensor_slices(
      {
        'image': splits[split],
        'label': np.arange(count) % 2,
        'name': [f'{split}/picture {i}' for i in range(count)],
      }
    )

  counts = {split: len(encoded) for split, encoded in splits.items()}
  fields = {'name': 'pictures', 'native_size': None} | fields
  return sources.Source(
    class_names=('even', 'odd'),
    num_examples=counts,
    examples=examples,
    **fields,
  )


def _pixels(prepared: records.PreparedSet, split: str) -> np.ndarray:
  """All stored pictures of a split, decoded as the pipeline decodes them."""
  split = prepared.open_split(split)
  stored = split.read(np.arange(len(split)))
  if split.encoding == records.RAW:
    return stored
  window = [0, 0, prepared.image_size, prepared.image_size]
  return np.stack(
    [tf.io.decode_and_crop_jpeg(jpeg, window, channels=3) for jpeg in stored]
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """Class folders with pictures of odd shapes."""
  root = tmp_path_factory.mktemp('folder')
  pictures = {
    'train/a/tall.png': _png(_picture(0, 150, 70)),
    'train/a/wide.jpg': _jpeg(_picture(1, 65, 131)),
    'train/b/small.png': _png(_picture(2, 20, 31)),
    'train/b/grey.jpeg': _jpeg(_picture(3, 90, 90, channels=1)),
    # ILSVRC-2012 has one PNG under such a name.
    'train/b/misnamed.JPEG': _png(_picture(4, 70, 64)),
    'val/a/right.png': _png(_picture(5, SIZE, SIZE)),
    'val/b/one_pixel_more.png': _png(_picture(6, SIZE, SIZE + 1)),
  }
  for path, encoded in pictures.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(encoded)
  return root


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory) -> records.PreparedSet:
  source = sources.open_source(f'folder={folder}')
  return prepare.prepare(source, str(tmp_path_factory.mktemp('data')), SIZE)


def test_pictures_of_all_shapes(prepared):
  assert prepared.image_size == SIZE
  assert prepared.info['encoding'] == records.JPEG
  assert prepared.class_names == ['a', 'b']
  for split, labels in (('train', [0, 0, 1, 1, 1]), ('validation', [0, 1])):
    count = len(labels)
    assert prepared.num_examples(split) == count
    assert _pixels(prepared, split).shape == (count, SIZE, SIZE, 3)
    stored = prepared.open_split(split).labels
    assert stored.dtype == np.int32 and stored.tolist() == labels
  # The third of the sorted paths: train/b/grey.jpeg.
  grey = _pixels(prepared, 'train')[2].astype(int)
  assert np.abs(grey - grey[..., :1]).max() <= 1


def test_statistics_are_those_of_the_stored_training_pixels(prepared):
  pixels = _pixels(prepared, 'train').astype(np.float64)
  centred = (pixels - pixels.mean(axis=(0, 1, 2))).reshape(-1, 3)
  expected = {
    'mean_image': pixels.mean(axis=0),
    'rgb_covariance': centred.T @ centred / len(centred),
  }
  statistics = prepared.statistics()
  assert statistics.keys() == expected.keys()
  for name, value in expected.items():
    assert statistics[name].dtype == np.float64
    np.testing.assert_allclose(statistics[name], value, rtol=1e-9)


def test_jpeg_keeps_pictures_of_the_target_size(prepared):
  right, one_more = _pixels(prepared, 'validation').astype(int)
  assert np.abs(right - _picture(5, SIZE, SIZE)).mean() < 1.5
  centre = _picture(6, SIZE, SIZE + 1)[:, :SIZE]
  assert np.abs(one_more - centre).mean() < 1.5


@pytest.mark.parametrize('shape', [(32, 48), (48, 32), (32, 32), (32, 34)])
def test_shrinking_by_two_averages_blocks(shape):
  height, width = shape
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  blocks = image.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
  top, left = (height // 2 - 16) // 2, (width // 2 - 16) // 2
  expected = blocks[top : top + 16, left : left + 16]
  result = prepare.resize_and_crop(tf.constant(image), 16).numpy()
  assert result.dtype == np.uint8
  # Half a level of rounding, and float32.
  assert np.abs(result - expected).max() <= 0.5 + 1e-3


def _cubic(distance: np.ndarray) -> np.ndarray:
  """Keys' kernel, with a = -1/2."""
  d = np.abs(distance)
  near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * (d - 1) * (d - 2) ** 2
  return np.select([d < 1, d < 2], [near, far])


def test_enlarging_by_four_is_bicubic():
  # Of noise, so that overshoot must be clipped, not wrapped.
  image = np.random.default_rng(0).integers(0, 256, (9, 21, 3), np.uint8)
  taps = [
    _cubic((np.arange(4 * n)[:, None] + 0.5) / 4 - 0.5 - np.arange(n))
    for n in (9, 21)
  ]
  whole = np.einsum('yi,xj,ijc->yxc', *taps, image.astype(np.float64))
  # Columns 24 to 59 of 84 are kept; what borders do to rows is not our concern.
  kept = whole[8:-8, 24:60]
  assert kept.min() < 0 and kept.max() > 255
  result = prepare.resize_and_crop(tf.constant(image), 36).numpy()
  assert np.abs(result[8:-8] - np.clip(kept, 0, 255)).max() <= 0.5 + 1e-3


def test_images_under_64_pixels_are_stored_exactly(tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
  source = _source([_png(p) for p in pixels], native_size=32)
  # The size is the pictures' own, not the 256 asked for.
  prepared = prepare.prepare(source, str(tmp_path), 256)
  assert prepared.image_size == 32 and prepared.info['encoding'] == 'raw'
  np.testing.assert_array_equal(_pixels(prepared, 'train'), pixels)
  mean = prepared.statistics()['mean_image']
  np.testing.assert_allclose(mean, pixels.astype(np.float64).mean(axis=0))


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_a_truncated_file_is_named_and_leaves_nothing(tmp_path, split):
  good, bad = (_jpeg(_picture(i, 70, 80)) for i in range(2))
  splits = {'train': [good, good, good], 'validation': [good, good]}
  splits[split][1] = bad[: len(bad) // 2]
  source = _source(splits['train'], splits['validation'])
  with pytest.raises(errors.UserError, match=f'{split}/picture 1 '):
    prepare.prepare(source, str(tmp_path), SIZE)
  assert not list(tmp_path.iterdir())
  assert records.open_prepared(str(tmp_path), source.name) is None


def test_killed_preparation_is_done_again(tmp_path):
  partial = tmp_path / 'pictures.partial'
  partial.mkdir()
  (partial / 'info.json').write_text(json.dumps({'image_size': 1}))
  (partial / 'junk').touch()
  assert records.open_prepared(str(tmp_path), 'pictures') is None
  source = _source([_png(_picture(0, 32, 32))] * 3)
  prepared = prepare.prepare(source, str(tmp_path), 32)
  assert [path.name for path in tmp_path.iterdir()] == ['pictures']
  assert not (prepared.directory / 'junk').exists()
  assert prepared.num_examples('train') == 3


def _data(tmp_path, **fields) -> ml_collections.ConfigDict:
  data = {'name': 'pictures', 'dir': str(tmp_path), 'image_size': 32}
  places = {'tfds_dir': '', 'manual_dir': ''}
  return ml_collections.ConfigDict(data | places | fields)


def _refusal(data: ml_collections.ConfigDict) -> str:
  with pytest.raises(errors.UserError) as failure:
    prepare.open_or_prepare(data)
  assert '\n' not in str(failure.value)
  return str(failure.value)


def test_another_image_size_is_refused(tmp_path):
  source = _source([_png(_picture(0, 32, 32))])
  prepare.prepare(source, str(tmp_path), 32)
  assert prepare.open_or_prepare(_data(tmp_path)).image_size == 32
  for size in (16, 48):
    message = _refusal(_data(tmp_path, image_size=size))
    assert f'data.image_size={size}' in message and '32' in message


def test_missing_sets_are_prepared_only_where_small(tmp_path, monkeypatch):
  small = _source([_png(_picture(0, 32, 32))])
  counts = {'train': 100_001, 'validation': 1}
  large = sources.Source('pictures', (), None, counts, small.examples)
  monkeypatch.setattr(sources, 'open_source', lambda *unused: large)
  message = _refusal(_data(tmp_path))
  command = 'python -m alexnet_jax.data.prepare --source=pictures'
  assert command in message and f'--data_dir={tmp_path}' in message
  assert not list(tmp_path.iterdir())
  monkeypatch.setattr(sources, 'open_source', lambda *unused: small)
  assert prepare.open_or_prepare(_data(tmp_path)).num_examples('train') == 1


@pytest.mark.parametrize('manual_dir', ['', '/my/tars'])
def test_imagenet_is_never_prepared_unasked(tmp_path, manual_dir):
  message = _refusal(
    _data(tmp_path, name='imagenet2012', manual_dir=manual_dir)
  )
  for tar in ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'):
    assert tar in message
  command = (
    'python -m alexnet_jax.data.prepare --source=imagenet2012 '
    f'--data_dir={tmp_path} --manual_dir={manual_dir}'
  )
  assert command in message
  assert not list(tmp_path.iterdir())


def test_imagenet_of_another_size_is_warned_about(tmp_path):
  # The counts of ILSVRC-2012, then of a sample of it, then of another set.
  cases = [
    ('imagenet2012', 1_281_167, 50_000, 0),
    ('imagenet2012', 1_281_167, 100, 1),
    ('imagenet2012', 440, 50_000, 1),
    ('pictures', 440, 100, 0),
  ]
  for source, train, validation, count in cases:
    splits = {'train': train, 'validation': validation}
    info = {'source': source, 'splits': splits}
    assert len(records.PreparedSet(tmp_path, info).warnings()) == count
