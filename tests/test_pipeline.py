"""Batches as a pure function of (seed, step)."""

import hashlib
import itertools
import json
import pathlib

import ml_collections
import numpy as np
import pytest
import tensorflow as tf
from array_record.python import array_record_module

from alexnet_jax import errors
from alexnet_jax.data import pipeline, records

N = 25
SIZE = 8
CROP = 6
# Not in the records' order, so that a mix-up shows.
LABELS = (np.arange(N) * 7 % N).astype(np.int32)


def _write_set(
  root: pathlib.Path, images: np.ndarray, encoding: str = 'raw'
) -> records.PreparedSet:
  """Writes the documented files: both splits hold the same, in two shards."""
  directory = root / 'numbers'
  directory.mkdir(parents=True)
  write, suffix = {
    'raw': (_write_raw, 'raw'),
    'jpeg': (_write_jpegs, 'array_record'),
  }[encoding]
  shards = np.split(images, [len(images) // 3])
  for split in ('train', 'validation'):
    np.save(directory / f'{split}_labels.npy', LABELS[: len(images)])
    for number, shard in enumerate(shards):
      write(directory / f'{split}-0000{number}-of-00002.{suffix}', shard)
  splits = ('train', 'validation')
  info = {
    'source': 'numbers',
    'fingerprint': '',
    'sha256': {},
    'image_size': images.shape[1],
    'encoding': encoding,
    'splits': dict.fromkeys(splits, len(images)),
    'shards': {split: _shards(directory, split, shards) for split in splits},
    'skipped': dict.fromkeys(splits, []),
  }
  (directory / 'info.json').write_text(json.dumps(info))
  names = ''.join(f'class {n}\n' for n in range(N))
  (directory / 'class_names.txt').write_text(names)
  return records.open_prepared(str(root), 'numbers')


def _shards(
  directory: pathlib.Path, split: str, shards: list[np.ndarray]
) -> list[dict]:
  paths = sorted(directory.glob(f'{split}-*'))
  return [
    {'images': len(shard), 'sha256': records.sha256(path)}
    for path, shard in zip(paths, shards, strict=True)
  ]


def _write_raw(path: pathlib.Path, images: np.ndarray) -> None:
  path.write_bytes(images.tobytes())


def _write_jpegs(path: pathlib.Path, images: np.ndarray) -> None:
  options = 'group_size:1,uncompressed'
  writer = array_record_module.ArrayRecordWriter(str(path), options)
  for image in images:
    jpeg = tf.io.encode_jpeg(image, quality=95, chroma_downsampling=False)
    writer.write(jpeg.numpy())
  writer.close()


def _numbered_images() -> np.ndarray:
  """Pixels hold (record, row, column)."""
  y, x = np.mgrid[:SIZE, :SIZE]
  return np.stack(
    [np.stack([np.full_like(y, n), y, x], axis=-1) for n in range(N)]
  ).astype(np.uint8)


@pytest.fixture(scope='module')
def numbers(tmp_path_factory) -> records.PreparedSet:
  return _write_set(tmp_path_factory.mktemp('raw'), _numbered_images())


@pytest.fixture(params=['raw', 'jpeg'])
def either(tmp_path, request) -> records.PreparedSet:
  return _write_set(tmp_path, _numbered_images(), request.param)


def _batches(
  prepared,
  steps: range,
  batch_size: int,
  seed: int = 0,
  share: slice = slice(None),
  **data,
) -> list[dict]:
  data = {'crop_size': CROP, 'workers': 0} | data
  data = {'random_crop': True, 'flip': True, 'train_examples': 0} | data
  return list(
    pipeline.train_batches(
      prepared,
      ml_collections.ConfigDict(data),
      seed=seed,
      batch_size=batch_size,
      start_step=steps.start,
      end_step=steps.stop,
      share=share,
    )
  )


def _digest(batch: dict) -> str:
  sha = hashlib.sha256()
  for name in sorted(batch):
    sha.update(f'{name} {batch[name].dtype} {batch[name].shape}'.encode())
    sha.update(batch[name].tobytes())
  return sha.hexdigest()


def _order(
  prepared, steps: range, batch_size: int, seed: int = 0, **data
) -> np.ndarray:
  """The record that each example of the run is, read from its pixels."""
  batches = _batches(prepared, steps, batch_size, seed, **data)
  return np.concatenate([batch['image'][:, 0, 0, 0] for batch in batches])


def test_a_batch_depends_on_seed_and_step_only(numbers):
  whole = [_digest(batch) for batch in _batches(numbers, range(9), 10)]
  assert len(set(whole)) == 9
  for start in (1, 4, 8):
    resumed = _batches(numbers, range(start, 9), 10)
    assert [_digest(batch) for batch in resumed] == whole[start:]
  other = [_digest(batch) for batch in _batches(numbers, range(9), 10, seed=1)]
  assert not set(whole) & set(other)


def _joined(parts: list[list[dict]]) -> list[dict]:
  """The batches of several processes -> global ones."""
  return [
    {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}
    for batch in zip(*parts, strict=True)
  ]


def _shares(batch_size: int, processes: int) -> list[slice]:
  ends = np.linspace(0, batch_size, processes + 1).astype(int).tolist()
  return [slice(*pair) for pair in itertools.pairwise(ends)]


# How many threads, how many processes, how many images at a time.
@pytest.mark.parametrize(
  'workers, processes, most',
  [(1, 1, 128), (3, 1, 128), (2, 2, 128), (2, 3, 128), (1, 1, 5), (3, 2, 4)],
)
def test_nothing_else_changes_a_batch(
  either, monkeypatch, workers, processes, most
):
  def training(share: slice = slice(None), start: int = 0, workers: int = 0):
    steps = range(start, 5)
    return _batches(either, steps, 12, share=share, workers=workers)

  def evaluation(share: slice = slice(None), workers: int = 0):
    return list(
      pipeline.eval_batches(
        either, 'validation', 12, share=share, workers=workers
      )
    )

  expected = [training(), training(start=3), evaluation()]
  monkeypatch.setattr(pipeline, '_MOST_AT_A_TIME', most)
  shares = _shares(12, processes)
  found = [
    _joined([training(share, 0, workers) for share in shares]),
    _joined([training(share, 3, workers) for share in shares]),
    _joined([evaluation(share, workers) for share in shares]),
  ]
  for a, b in zip(expected, found, strict=True):
    assert list(map(_digest, a)) == list(map(_digest, b))
  assert list(map(_digest, found[1])) == list(map(_digest, found[0][3:]))
  assert sum(batch['mask'].sum() for batch in found[2]) == N


def test_batches_have_the_documented_form(numbers):
  (batch,) = _batches(numbers, range(3, 4), 10)
  assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
    'image': (np.uint8, (10, CROP, CROP, 3)),
    'label': (np.int32, (10,)),
    'index': (np.uint32, (10,)),
  }
  np.testing.assert_array_equal(batch['index'], 3 * 10 + np.arange(10))


# 7 and 10 cross the ends of epochs; 60 holds more than two epochs.
@pytest.mark.parametrize('batch_size', [7, 10, 25, 60])
def test_every_epoch_is_a_permutation(numbers, batch_size):
  steps = range(-(-4 * N // batch_size))
  epochs = _order(numbers, steps, batch_size)[: 4 * N].reshape(4, N)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(N)] * 4)
  assert len({epoch.tobytes() for epoch in epochs}) == 4
  # Example i of the run does not depend on the batch size.
  np.testing.assert_array_equal(epochs.ravel(), _order(numbers, range(4), N))


def test_seeds_give_other_orders(numbers):
  first_epochs = [_order(numbers, range(1), N, seed) for seed in range(5)]
  assert len({epoch.tobytes() for epoch in first_epochs}) == 5


def test_step_a_million_is_reached_at_once(numbers):
  million = 1_000_000
  # Two batches of 15 there: examples 15,000,000 + 0..29, of epoch 600,000 on.
  batches = _batches(numbers, range(million, million + 2), 15)
  index = np.concatenate([batch['index'] for batch in batches])
  np.testing.assert_array_equal(index, 15_000_000 + np.arange(30))
  order = np.concatenate([batch['image'][:, 0, 0, 0] for batch in batches])
  np.testing.assert_array_equal(np.sort(order[:N]), np.arange(N))


# 3 and 4 offsets a side: a flip drawn from the bits of the offset would show
# only where the number of offsets is even.
@pytest.fixture(scope='module', params=[6, 5])
def many(numbers, request) -> dict:
  """7200 examples: some 200 or more of each crop, plain and mirrored."""
  batches = _batches(numbers, range(20), 360, crop_size=request.param)
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def _windows(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(top, left, mirrored) of crops of `_numbered_images`."""
  mirrored = images[:, 0, 0, 2] > images[:, 0, -1, 2]
  return images[:, 0, 0, 1], images[:, 0, :, 2].min(axis=1), mirrored


def test_crops_are_windows_of_their_record_and_label(many):
  raw, size = _numbered_images(), many['image'].shape[1]
  rows = zip(
    many['image'], many['label'], *_windows(many['image']), strict=True
  )
  for image, label, top, left, mirrored in rows:
    record = image[0, 0, 0]
    window = raw[record, top : top + size, left : left + size]
    window = window[:, ::-1] if mirrored else window
    np.testing.assert_array_equal(image, window)
    assert label == LABELS[record]


def test_crops_and_flips_are_uniform_and_independent(many):
  top, left, mirrored = _windows(many['image'])
  offsets = SIZE - many['image'].shape[1] + 1
  counts = np.zeros((offsets, offsets, 2))
  np.add.at(counts, (top, left, mirrored.astype(int)), 1)
  expected = len(top) / counts.size
  chi_squared = ((counts - expected) ** 2 / expected).sum()
  # With as many degrees of freedom: exceeded once in a thousand seeds.
  assert chi_squared < {17: 40.8, 31: 61.1}[counts.size - 1]


def test_train_examples_are_so_many_and_the_same_for_all_seeds(numbers):
  # Two epochs of seven records each.
  orders = [
    _order(numbers, range(2), 7, seed, train_examples=7) for seed in (0, 1)
  ]
  for order in orders:
    assert len(set(order[:7])) == 7
    assert set(order) == set(order[:7]) == set(orders[0])
  assert list(orders[0]) != list(orders[1])


def test_more_train_examples_than_there_are_are_refused(numbers):
  data = ml_collections.ConfigDict({'train_examples': N + 1})
  with pytest.raises(errors.UserError, match=rf'train_examples={N + 1} but'):
    pipeline.num_train_examples(numbers, data)


def test_without_random_crops_windows_lie_in_the_centre(numbers):
  data = {'crop_size': 5, 'random_crop': False}
  batch, random = (
    next(iter(_batches(numbers, range(1), 60, **more)))
    for more in (data, {'crop_size': 5})
  )
  top, left, mirrored = _windows(batch['image'])
  assert set(top) == set(left) == {(SIZE - 5) // 2}
  # All else is drawn as it was.
  np.testing.assert_array_equal(batch['label'], random['label'])
  np.testing.assert_array_equal(mirrored, _windows(random['image'])[2])


def test_an_image_is_cropped_anew_in_every_epoch(many):
  top, left, mirrored = _windows(many['image'])
  # Record 0 comes 288 times; draws keyed by the record would all be the same.
  ours = many['image'][:, 0, 0, 0] == 0
  draws = zip(top[ours], left[ours], mirrored[ours], strict=True)
  assert len(set(draws)) >= 18


def test_flips_can_be_turned_off(numbers):
  (batch,) = _batches(numbers, range(1), 100, flip=False)
  assert not _windows(batch['image'])[2].any()


def test_jpeg_records_give_the_batches_of_raw_ones(tmp_path):
  # Pictures that JPEG keeps within a few levels, and far from each other.
  y, x = np.mgrid[:32, :32]
  phases = np.arange(10)[:, None, None, None] + np.array([0.0, 2.0, 4.0])
  waves = np.sin((x * 0.3 + y * 0.2)[None, ..., None] + phases)
  images = (127.5 + 100 * waves).round().astype(np.uint8)
  raw = _write_set(tmp_path / 'raw', images)
  jpeg = _write_set(tmp_path / 'jpeg', images, 'jpeg')
  both = (_batches(p, range(3), 8, crop_size=20) for p in (raw, jpeg))
  for expected, batch in zip(*both, strict=True):
    np.testing.assert_array_equal(batch['label'], expected['label'])
    difference = batch['image'].astype(int) - expected['image']
    # A crop one pixel off would differ by some 15 levels.
    assert np.abs(difference).mean() < 3


# 5 divides N, 7 and 10 do not, 40 is more than there is.
@pytest.mark.parametrize('batch_size', [5, 7, 10, 40])
def test_evaluation_sees_every_example_once(numbers, batch_size):
  batches = list(pipeline.eval_batches(numbers, 'validation', batch_size))
  assert all(b['image'].shape[0] == batch_size for b in batches)
  assert len(batches) == -(-N // batch_size)
  joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  # Padding comes last and is masked.
  mask = np.arange(len(joined['mask'])) < N
  assert joined['mask'].dtype == np.float32
  np.testing.assert_array_equal(joined['mask'], mask)
  np.testing.assert_array_equal(joined['image'][:N], _numbered_images())
  np.testing.assert_array_equal(joined['label'][:N], LABELS)


def _with_a_flipped_bit(content: bytes) -> bytes:
  # Inside the first JPEG file, where there is one.
  place = max(0, content.find(b'\xff\xd8\xff')) + 100
  changed = bytes([content[place] ^ 1])
  return content[:place] + changed + content[place + 1 :]


def _without_its_end(content: bytes) -> bytes:
  return content[:-100]


@pytest.mark.parametrize(
  'encoding, change',
  [
    ('jpeg', _with_a_flipped_bit),
    ('jpeg', _without_its_end),
    ('raw', _with_a_flipped_bit),
    ('raw', _without_its_end),
  ],
)
def test_damage_ends_in_one_sentence(tmp_path, encoding, change):
  prepared = _write_set(tmp_path, _numbered_images(), encoding)
  (path,) = prepared.directory.glob('train-00001-of-00002.*')
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(errors.UserError, match='--check') as failure:
    _batches(prepared, range(3), 10)
  message = str(failure.value)
  assert str(prepared.directory) in message and '\n' not in message


@pytest.mark.parametrize('encoding', ['raw', 'jpeg'])
def test_a_shard_of_another_length_is_refused_at_once(tmp_path, encoding):
  # Before the pictures behind it are read with each other's labels.
  prepared = _write_set(tmp_path / 'whole', _numbered_images(), encoding)
  other = _write_set(tmp_path / 'other', _numbered_images()[:-3], encoding)
  shard, shorter = prepared.shard_paths('train')[0], other.shard_paths('train')
  shard.write_bytes(shorter[0].read_bytes())
  with pytest.raises(errors.UserError, match='--check'):
    prepared.open_split('train')


@pytest.mark.parametrize('side', [SIZE - 1, SIZE + 1])
def test_a_picture_of_another_size_is_named(tmp_path, side):
  prepared = _write_set(tmp_path, _numbered_images(), 'jpeg')
  path, _ = prepared.shard_paths('train')
  pictures = list(_numbered_images()[: N // 3])
  pictures[5] = np.zeros((side, side, 3), np.uint8)
  _write_jpegs(path, pictures)
  with pytest.raises(errors.UserError, match='record 5 of'):
    _batches(prepared, range(3), 10)


@pytest.mark.parametrize('label', [-1, N])
def test_labels_out_of_range_are_refused_at_once(tmp_path, label):
  prepared = _write_set(tmp_path, _numbered_images())
  labels = np.where(LABELS == 3, label, LABELS)
  np.save(prepared.directory / 'train_labels.npy', labels)
  with pytest.raises(errors.UserError, match=rf'labels from.*for {N} classes'):
    prepared.open_split('train')


def test_a_record_that_is_no_picture_ends_in_one_sentence(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(tf.io, 'encode_jpeg', lambda *a, **b: tf.constant('text'))
  prepared = _write_set(tmp_path, _numbered_images(), 'jpeg')
  with pytest.raises(errors.UserError, match='--check'):
    list(pipeline.eval_batches(prepared, 'validation', 10))


def test_evaluations_leave_no_file_open(tmp_path):
  prepared = _write_set(tmp_path, _numbered_images()[:6], 'jpeg')
  counts = []
  for _ in range(4):
    list(pipeline.eval_batches(prepared, 'validation', 3))
    counts.append(len(list(pathlib.Path('/proc/self/fd').iterdir())))
  assert counts[1] == counts[-1]
