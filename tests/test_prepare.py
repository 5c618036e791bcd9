"""Content of prepared sets, and what preparation refuses."""

import dataclasses
import hashlib
import pathlib
import shlex

import ml_collections
import numpy as np
import pytest
from absl import flags

from alexnet_jax.data import images, prepare, records, shards, sources
from tests import pictures

SIZE = 64


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> records.PreparedSet:
  """Class folders with pictures of several shapes, prepared."""
  root = tmp_path_factory.mktemp('folder')
  png, jpeg, smooth = pictures.png, pictures.jpeg, pictures.smooth
  files = {
    'train/a/tall.png': png(smooth(0, 150, 70)),
    'train/a/wide.jpg': jpeg(smooth(1, 65, 131)),
    'train/b/grey.jpeg': jpeg(smooth(3, 90, 90, channels=1)),
    'train/b/small.png': png(smooth(2, 20, 31)),
    'val/a/right.png': png(smooth(5, SIZE, SIZE)),
    'val/b/one_pixel_more.png': png(smooth(6, SIZE, SIZE + 1)),
  }
  pictures.write(root, files)
  source = sources.open_source(f'folder={root}')
  return prepare.prepare(source, str(tmp_path_factory.mktemp('data')), SIZE)


def test_pictures_of_all_shapes(prepared):
  assert prepared.image_size == SIZE
  assert prepared.info['encoding'] == records.JPEG
  assert prepared.class_names == ['a', 'b']
  for split, labels in (('train', [0, 0, 1, 1]), ('validation', [0, 1])):
    count = len(labels)
    assert prepared.num_examples(split) == count
    assert pictures.stored(prepared, split).shape == (count, SIZE, SIZE, 3)
    stored = prepared.open_split(split).labels
    assert stored.dtype == np.int32 and stored.tolist() == labels
  # The third of the sorted paths: train/b/grey.jpeg.
  grey = pictures.stored(prepared, 'train')[2].astype(int)
  assert np.abs(grey - grey[..., :1]).max() <= 1
  # JPEG keeps pictures of the target size.
  right, one_more = pictures.stored(prepared, 'validation').astype(int)
  assert np.abs(right - pictures.smooth(5, SIZE, SIZE)).mean() < 1.5
  centre = pictures.smooth(6, SIZE, SIZE + 1)[:, :SIZE]
  assert np.abs(one_more - centre).mean() < 1.5


def _assert_moments(found: dict, pixels: np.ndarray) -> None:
  """Compares statistics with those of [N, S, S, 3], in float64."""
  flat = pixels.reshape(-1, 3).astype(np.float64)
  expected = {
    'mean_image': pixels.astype(np.float64).mean(axis=0),
    'rgb_covariance': np.cov(flat.T, bias=True),
  }
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].dtype == np.float64
    np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9)


def test_statistics_are_those_of_the_stored_training_pixels(prepared):
  pixels = pictures.stored(prepared, 'train')
  _assert_moments(prepared.statistics(), pixels)


def test_sums_are_exact_in_any_order():
  # 256 pixels a side of 254 and 255: sums of products beyond 32 bits.
  shape = (6, 256, 256, 3)
  pixels = np.random.default_rng(0).integers(254, 256, shape, np.uint8)
  results = []
  for order in (range(6), (3, 0, 5, 4, 1, 2)):
    sums = shards.PixelSums(256)
    for image in pixels[list(order)]:
      sums.add(image, images.color_products(image).numpy())
    results.append(sums.statistics())
  one, other = results
  _assert_moments(one, pixels)
  assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_images_under_64_pixels_are_stored_exactly(tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
  source = pictures.source(list(map(pictures.png, pixels)), native_size=32)
  # The size is the pictures' own, not the 256 asked for.
  prepared = prepare.prepare(source, str(tmp_path), 256)
  assert prepared.image_size == 32 and prepared.info['encoding'] == 'raw'
  np.testing.assert_array_equal(pictures.stored(prepared, 'train'), pixels)
  _assert_moments(prepared.statistics(), pixels)


@pytest.mark.parametrize('encoding', [records.JPEG, records.RAW])
def test_shards_hold_what_one_file_would(tmp_path, encoding):
  images = np.stack([pictures.smooth(i, 32, 32) for i in range(5)])
  encoded = list(map(pictures.png, images))
  source = pictures.source(encoded, encoded[1:4])
  whole, cut = (
    prepare.prepare(source, str(tmp_path / name), 32, encoding, shard_size=n)
    for name, n in (('whole', 5), ('cut', 2))
  )
  counts = {'train': [2, 2, 1], 'validation': [2, 1]}
  assert cut.info['skipped'] == {'train': [], 'validation': []}
  for split, expected in (('train', images), ('validation', images[1:4])):
    infos = cut.info['shards'][split]
    assert [info['images'] for info in infos] == counts[split]
    for number, info in enumerate(infos):
      pattern = f'{split}-{number:05d}-of-{len(infos):05d}.*'
      (path,) = cut.directory.glob(pattern)
      assert info['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = pictures.stored(cut, split)
    np.testing.assert_array_equal(pixels, pictures.stored(whole, split))
    # Smooth pictures survive JPEG, but for colour at half the resolution.
    error = np.abs(pixels - expected.astype(int))
    assert error.max() == 0 if encoding == 'raw' else error.mean() < 2
    labels = cut.open_split(split).labels
    np.testing.assert_array_equal(labels, np.arange(len(expected)) % 2)
  for name, value in whole.statistics().items():
    assert cut.statistics()[name].tobytes() == value.tobytes()


GOOD = pictures.jpeg(pictures.smooth(0, 70, 80))
TRUNCATED, TEXT = GOOD[: len(GOOD) // 2], b'<html>'


def _names(directory: pathlib.Path) -> set[str]:
  return {path.name for path in directory.iterdir()}


def test_a_file_that_is_no_picture_is_named(tmp_path):
  source = pictures.source([GOOD, TEXT, GOOD])
  message = pictures.refusal(prepare.prepare, source, str(tmp_path), SIZE)
  assert message.startswith('train/picture 1 ')
  # No shard was finished, so that nothing is worth keeping.
  assert _names(tmp_path) == {'pictures.lock'}


@pytest.mark.parametrize(
  'split, resumed',
  [
    ('train', [('train', 2), ('validation', 0)]),
    ('validation', [('validation', 2)]),
  ],
)
def test_shards_that_were_finished_outlive_a_bad_file(tmp_path, split, resumed):
  splits = {'train': [GOOD] * 5, 'validation': [GOOD] * 5}
  splits[split][3] = TRUNCATED
  source = pictures.source(*splits.values())
  message = pictures.refusal(
    prepare.prepare, source, str(tmp_path), SIZE, shard_size=2
  )
  assert message.startswith(f'{split}/picture 3 ')
  assert _names(tmp_path) == {'pictures.lock', 'pictures.partial'}
  assert records.open_prepared(str(tmp_path), 'pictures') is None
  splits[split][3] = GOOD
  source, starts = pictures.watched(pictures.source(*splits.values()))
  prepare.prepare(source, str(tmp_path), SIZE, shard_size=2)
  assert starts == resumed


@pytest.mark.parametrize('encoding', ['jpeg', 'raw'])
def test_bad_files_can_be_left_out(tmp_path, encoding):
  # Picture i is of grey level 10 i; one shard is left with no picture.
  levels = np.arange(7, dtype=np.uint8)[:, None, None, None] * 10
  encoded = list(map(pictures.png, np.broadcast_to(levels, (7, 8, 8, 3))))
  encoded[1], encoded[4], encoded[5] = TRUNCATED, b'', TEXT
  how = {'encoding': encoding, 'skip_errors': True, 'shard_size': 2}
  prepared = prepare.prepare(pictures.source(encoded), str(tmp_path), 8, **how)
  assert prepared.info['splits'] == {'train': 4, 'validation': 1}
  counts = [info['images'] for info in prepared.info['shards']['train']]
  assert counts == [1, 2, 0, 1]
  skipped = prepared.info['skipped']['train']
  reasons = ((1, ''), (4, 'No such file'), (5, 'it is no readable JPEG'))
  for said, (i, reason) in zip(skipped, reasons, strict=True):
    assert said.startswith(f'train/picture {i} ({reason}')
  found, left_out = prepared.description().splitlines()
  assert found.endswith('train + validation: even 3 + 1, odd 1 + 0.')
  assert left_out.startswith(f'3 left out: {skipped[0]}, ')
  found = pictures.stored(prepared, 'train')[:, 0, 0, 0]
  assert found.tolist() == [0, 20, 30, 60]
  assert prepared.open_split('train').labels.tolist() == [0, 0, 1, 0]
  assert (prepared.statistics()['mean_image'] == 27.5).all()
  nothing = pictures.source([GOOD], [b'', b''], name='nothing')
  message = pictures.refusal(
    prepare.prepare, nothing, str(tmp_path), SIZE, **how
  )
  assert 'no picture of validation' in message


def test_progress_that_was_cut_is_named(tmp_path):
  splits = [GOOD, GOOD, TRUNCATED], [GOOD]
  source, how = pictures.source(*splits), {'shard_size': 1}
  pictures.refusal(prepare.prepare, source, str(tmp_path), SIZE, **how)
  path = tmp_path / 'pictures.partial' / 'train_progress.npz'
  whole = path.read_bytes()
  for content in (b'', whole[:100], whole[:-30]):
    path.write_bytes(content)
    message = pictures.refusal(
      prepare.prepare, source, str(tmp_path), SIZE, **how
    )
    assert message.startswith(f'{path} is damaged')
  path.unlink()  # as the message says
  source, starts = pictures.watched(pictures.source([GOOD] * 3, [GOOD]))
  prepare.prepare(source, str(tmp_path), SIZE, **how)
  assert starts[0] == ('train', 0)


def test_a_source_that_ends_early_is_named(tmp_path):
  source = pictures.source([GOOD] * 3)
  counts = {'train': 4, 'validation': 1}
  source = dataclasses.replace(source, num_examples=counts)
  message = pictures.refusal(prepare.prepare, source, str(tmp_path), SIZE)
  assert "'pictures'" in message and '3' in message and '4' in message


def test_a_file_that_went_away_is_named(tmp_path):
  paths = ('train/a/0.png', 'train/b/1.png', 'train/b/2.png', 'val/a/3.png')
  pictures.write(tmp_path, dict.fromkeys(paths, GOOD))
  source = sources.open_source(f'folder={tmp_path}')
  lost, broken = tmp_path / 'train/b/1.png', tmp_path / 'train/b/2.png'
  data_dir = str(tmp_path / 'data')
  for path in (lost, broken):
    path.unlink()
  broken.symlink_to(broken)  # a file that is there and cannot be read
  message = pictures.refusal(prepare.prepare, source, data_dir, SIZE)
  assert message.startswith(f'{lost} ') and 'No such file' in message
  lost.write_bytes(GOOD)
  message = pictures.refusal(prepare.prepare, source, data_dir, SIZE)
  assert message.startswith(f'{broken} ') and 'symbolic links' in message
  # The remedy is a command that works.
  command = shlex.split(message.split('`')[1])
  assert command[:3] == ['python', '-m', 'alexnet_jax.data.prepare']
  pictures.run_prepare(*command[3:])
  prepared = records.open_prepared(data_dir, source.name)
  (said,) = prepared.info['skipped']['train']
  assert said.startswith(f'{broken} (') and 'symbolic links' in said
  assert prepared.num_examples('train') == 2


@pytest.mark.parametrize('size', ['-5', '0', '20000'])
def test_an_image_size_out_of_range_is_refused(size):
  option = f'--image_size={size}'
  with pytest.raises(flags.IllegalFlagValueError) as failure:
    pictures.run_prepare('--source=shapes', option)
  assert option in str(failure.value) and '[1, 4096]' in str(failure.value)


def _data(tmp_path, **fields) -> ml_collections.ConfigDict:
  data = {'name': 'pictures', 'dir': str(tmp_path), 'image_size': 32}
  places = {'tfds_dir': '', 'manual_dir': ''}
  return ml_collections.ConfigDict(data | places | fields)


def test_missing_sets_are_prepared_only_where_small(tmp_path, monkeypatch):
  small = pictures.source([pictures.png(pictures.smooth(0, 32, 32))])
  counts = {'train': 100_001, 'validation': 1}
  large = dataclasses.replace(small, num_examples=counts)
  monkeypatch.setattr(sources, 'open_source', lambda *unused: large)
  message = pictures.refusal(prepare.open_or_prepare, _data(tmp_path))
  command = 'python -m alexnet_jax.data.prepare --source=pictures'
  assert command in message and f'--data_dir={tmp_path}' in message
  assert not list(tmp_path.iterdir())
  monkeypatch.setattr(sources, 'open_source', lambda *unused: small)
  assert prepare.open_or_prepare(_data(tmp_path)).image_size == 32
  # It is there now, in one size.
  monkeypatch.setattr(sources, 'open_source', None)
  assert prepare.open_or_prepare(_data(tmp_path)).num_examples('train') == 1
  for size in (16, 48):
    data = _data(tmp_path, image_size=size)
    message = pictures.refusal(prepare.open_or_prepare, data)
    assert f'data.image_size={size}' in message and '32' in message


@pytest.mark.parametrize('manual_dir', ['', '/my/tars'])
def test_imagenet_is_never_prepared_unasked(tmp_path, manual_dir):
  data = _data(tmp_path, name='imagenet2012', manual_dir=manual_dir)
  message = pictures.refusal(prepare.open_or_prepare, data)
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
