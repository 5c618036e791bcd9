"""Batches as a pure function of (seed, step)."""

import itertools
import pathlib

import ml_collections
import numpy as np
import pytest
from array_record.python import array_record_module

from alexnet_jax import errors
from alexnet_jax.data import pipeline, prepare, records
from tests import pictures

N = 25
SIZE = 8
CROP = 6
# Not in the records' order, so that a mix-up shows.
LABELS = (np.arange(N) * 7 % N).astype(np.int32)


def _write_set(
  root: pathlib.Path, images: np.ndarray, encoding: str = 'raw'
) -> records.PreparedSet:
  """Prepares a set whose splits both hold all images, in two shards."""
  encoded, names = list(map(pictures.png, images)), map(str, range(N))
  source = pictures.source(
    encoded, encoded, LABELS, class_names=tuple(names), name='numbers'
  )
  size, half = images.shape[1], len(images) // 2 + 1
  return prepare.prepare(source, str(root), size, encoding, shard_size=half)


def _write_records(path: pathlib.Path, contents: list[bytes]) -> None:
  if path.suffix == '.raw':
    path.write_bytes(b''.join(contents))
    return
  options = 'group_size:1,uncompressed'
  writer = array_record_module.ArrayRecordWriter(str(path), options)
  for content in contents:
    writer.write(content)
  writer.close()


def _numbered_images() -> np.ndarray:
  """Returns [N, S, S, 3] whose pixels hold (record, row, column)."""
  return np.stack(np.mgrid[:N, :SIZE, :SIZE], axis=-1).astype(np.uint8)


@pytest.fixture(scope='module')
def numbers(tmp_path_factory) -> records.PreparedSet:
  return _write_set(tmp_path_factory.mktemp('raw'), _numbered_images())


def _data(**fields) -> ml_collections.ConfigDict:
  data = {'crop_size': CROP, 'workers': 0, 'train_examples': 0}
  data |= {'random_crop': True, 'flip': True, 'pad': 0}
  return ml_collections.ConfigDict(data | fields)


def _batches(
  prepared,
  steps: range,
  batch_size: int,
  seed: int = 0,
  share: slice = slice(None),
  **data,
) -> list[dict]:
  return list(
    pipeline.train_batches(
      prepared,
      _data(**data),
      seed=seed,
      batch_size=batch_size,
      start_step=steps.start,
      end_step=steps.stop,
      share=share,
    )
  )


def _joined(batches) -> dict:
  """Returns the examples of several batches as one batch."""
  batches = list(batches)
  return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def _assert_same(found, expected) -> None:
  for a, b in zip(found, expected, strict=True):
    for name in b:
      assert a[name].dtype == b[name].dtype
      np.testing.assert_array_equal(a[name], b[name])


def _order(*args, **data) -> np.ndarray:
  """Returns the record of each example, which its pixels hold."""
  return _joined(_batches(*args, **data))['image'][:, 0, 0, 0]


# Threads, processes, images per piece.
@pytest.mark.parametrize(
  'encoding, workers, processes, piece',
  [
    ('raw', 3, 1, 5),
    ('raw', 2, 3, 128),
    ('jpeg', 1, 1, 128),
    ('jpeg', 3, 2, 4),
  ],
)
def test_a_batch_depends_on_seed_and_step_only(
  tmp_path, monkeypatch, encoding, workers, processes, piece
):
  prepared = _write_set(tmp_path, _numbered_images(), encoding)

  def training(start: int, share=slice(None), workers=0, seed=0):
    steps = range(start, 5)
    return _batches(prepared, steps, 12, seed, share, workers=workers)

  def evaluation(share=slice(None), workers=0):
    return pipeline.eval_batches(
      prepared, 'validation', 12, share=share, workers=workers
    )

  trained, evaluated = training(0), list(evaluation())
  assert (
    len({b['image'].tobytes() for b in trained + training(0, seed=1)}) == 10
  )
  monkeypatch.setattr(pipeline, '_MAX_PIECE', piece)
  ends = np.linspace(0, 12, processes + 1).astype(int).tolist()
  shares = [slice(*pair) for pair in itertools.pairwise(ends)]
  for start in (0, 3):
    parts = [training(start, share, workers) for share in shares]
    _assert_same(map(_joined, zip(*parts, strict=True)), trained[start:])
  parts = [evaluation(share, workers) for share in shares]
  _assert_same(map(_joined, zip(*parts, strict=True)), evaluated)


def test_step_a_million_is_reached_at_once_in_the_documented_form(numbers):
  million = 1_000_000
  # Two batches of 15 there: examples 15,000,000 + 0..29, of epoch 600,000 on.
  batch = _joined(_batches(numbers, range(million, million + 2), 15))
  assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
    'image': (np.uint8, (30, CROP, CROP, 3)),
    'label': (np.int32, (30,)),
    'index': (np.uint32, (30,)),
  }
  np.testing.assert_array_equal(batch['index'], 15_000_000 + np.arange(30))
  order = batch['image'][:N, 0, 0, 0]
  np.testing.assert_array_equal(np.sort(order), np.arange(N))


# 7 crosses the ends of epochs; 60 holds more than two epochs.
@pytest.mark.parametrize('batch_size', [7, 60])
def test_every_epoch_is_a_permutation(numbers, batch_size):
  steps = range(-(-4 * N // batch_size))
  epochs = _order(numbers, steps, batch_size)[: 4 * N].reshape(4, N)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(N)] * 4)
  other_seed = _order(numbers, range(1), N, seed=1)
  assert len({epoch.tobytes() for epoch in (*epochs, other_seed)}) == 5
  # Example i of the run does not depend on the batch size.
  np.testing.assert_array_equal(epochs.ravel(), _order(numbers, range(4), N))


# 3 and 4 offsets a side: a flip drawn from the bits of the offset would show
# only where the number of offsets is even.
@pytest.fixture(scope='module', params=[6, 5])
def many(numbers, request) -> dict:
  """7200 examples: some 200 or more of each crop, plain and mirrored."""
  return _joined(_batches(numbers, range(20), 360, crop_size=request.param))


def _windows(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (top, left, mirrored) of crops of `_numbered_images`."""
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
  # Record 0 comes 288 times; draws keyed by the record would all be the same.
  ours = many['image'][:, 0, 0, 0] == 0
  draws = zip(top[ours], left[ours], mirrored[ours], strict=True)
  assert len(set(draws)) >= 18


def test_train_examples_are_so_many_and_the_same_for_all_seeds(numbers):
  # Two epochs of seven records each.
  orders = [
    _order(numbers, range(2), 7, seed, train_examples=7) for seed in (0, 1)
  ]
  for order in orders:
    assert len(set(order[:7])) == 7
    assert set(order) == set(order[:7]) == set(orders[0])
  assert list(orders[0]) != list(orders[1])
  with pytest.raises(errors.UserError, match=rf'train_examples={N + 1} but'):
    pipeline.num_train_examples(numbers, _data(train_examples=N + 1))


def test_crops_may_reach_into_a_pad_of_the_mean_colour(numbers):
  images = _numbered_images()
  mean = images.mean(axis=(0, 1, 2)).round()
  padded = np.empty((N, SIZE + 4, SIZE + 4, 3))
  padded[:] = mean
  padded[:, 2:-2, 2:-2] = images
  batch = _joined(_batches(numbers, range(4), 60, crop_size=SIZE, pad=2))
  corners = set()
  for image, label in zip(batch['image'], batch['label'], strict=True):
    places = [
      (record, top, left)
      for record in np.flatnonzero(label == LABELS)
      for top in range(5)
      for left in range(5)
      for side in (1, -1)
      if (
        padded[record, top : top + SIZE, left : left + SIZE][:, ::side] == image
      ).all()
    ]
    assert places
    corners |= {place[1:] for place in places}
  assert corners == {(i, j) for i in range(5) for j in range(5)}


def test_crops_and_flips_can_be_turned_off(numbers):
  usual, central, plain = (
    _joined(_batches(numbers, range(1), 60, crop_size=5, **data))
    for data in ({}, {'random_crop': False}, {'flip': False})
  )
  top, left, mirrored = _windows(central['image'])
  assert set(top) == set(left) == {(SIZE - 5) // 2}
  assert not _windows(plain['image'])[2].any()
  # All else is drawn as it was.
  np.testing.assert_array_equal(mirrored, _windows(usual['image'])[2])
  for batch in (central, plain):
    np.testing.assert_array_equal(batch['label'], usual['label'])


def test_jpeg_records_give_the_batches_of_raw_ones(tmp_path):
  # Pictures that JPEG keeps within a few levels, and far from each other.
  y, x = np.mgrid[:32, :32]
  phases = np.arange(10)[:, None, None, None] + np.array([0.0, 0.5, 1.0])
  waves = np.sin((x * 0.3 + y * 0.2)[None, ..., None] + phases)
  images = (127.5 + 100 * waves).round().astype(np.uint8)
  expected, batch = (
    _joined(
      _batches(
        _write_set(tmp_path / encoding, images, encoding),
        range(3),
        8,
        crop_size=20,
      )
    )
    for encoding in ('raw', 'jpeg')
  )
  np.testing.assert_array_equal(batch['label'], expected['label'])
  difference = np.abs(batch['image'].astype(int) - expected['image'])
  # A crop one pixel off would differ by some 15 levels.
  assert difference.mean(axis=(1, 2, 3)).max() < 3


# 5 divides N, 7 does not, 40 is more than there is.
@pytest.mark.parametrize('batch_size', [5, 7, 40])
def test_evaluation_sees_every_example_once(numbers, batch_size):
  batches = list(pipeline.eval_batches(numbers, 'validation', batch_size))
  assert all(b['image'].shape[0] == batch_size for b in batches)
  assert len(batches) == -(-N // batch_size)
  joined = _joined(batches)
  # Padding comes last and is masked.
  mask = np.arange(len(joined['mask'])) < N
  assert joined['mask'].dtype == np.float32
  np.testing.assert_array_equal(joined['mask'], mask)
  np.testing.assert_array_equal(joined['image'][:N], _numbered_images())
  np.testing.assert_array_equal(joined['label'][:N], LABELS)


def _flip_a_bit(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  # Inside the first JPEG file, where there is one.
  content[max(0, content.find(b'\xff\xd8\xff')) + 100] ^= 1
  path.write_bytes(content)


def _drop_the_end(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[:-100])


def _drop_a_record(path: pathlib.Path) -> None:
  # Later pictures would be read with each other's labels.
  encode = (
    pictures.jpeg if path.suffix == '.array_record' else np.ndarray.tobytes
  )
  _write_records(path, list(map(encode, _numbered_images()[N // 2 + 2 :])))


def _use_other_sizes(path: pathlib.Path) -> None:
  large = pictures.jpeg(np.zeros((SIZE + 1, SIZE + 1, 3), np.uint8))
  _write_records(path, [large] * (N // 2))


def _use_texts(path: pathlib.Path) -> None:
  _write_records(path, [b'text'] * (N // 2))


def _use_labels_from_1(path: pathlib.Path) -> None:
  np.save(path.with_name('train_labels.npy'), LABELS + 1)


def _use_labels_from_minus_1(path: pathlib.Path) -> None:
  np.save(path.with_name('train_labels.npy'), LABELS - 1)


@pytest.mark.parametrize(
  'encoding, change',
  [
    ('jpeg', _flip_a_bit),
    ('jpeg', _drop_the_end),
    ('jpeg', _drop_a_record),
    ('jpeg', _use_other_sizes),
    ('jpeg', _use_texts),
    ('raw', _flip_a_bit),
    ('raw', _drop_the_end),
    ('raw', _drop_a_record),
    ('raw', _use_labels_from_1),
    ('raw', _use_labels_from_minus_1),
  ],
)
def test_damage_ends_in_one_sentence(tmp_path, encoding, change):
  prepared = _write_set(tmp_path, _numbered_images(), encoding)
  change(prepared.shard_paths('train')[1])
  with pytest.raises(errors.UserError) as failure:
    _batches(prepared, range(3), 10)
  message = str(failure.value)
  assert str(prepared.directory) in message and '\n' not in message
  assert '--check' in message or f'for {N} classes; prepare' in message


@pytest.mark.parametrize('change', [_flip_a_bit, _use_other_sizes, _use_texts])
def test_a_damaged_image_is_named_by_its_number(tmp_path, change):
  prepared = _write_set(tmp_path, _numbered_images(), 'jpeg')
  change(prepared.shard_paths('train')[1])
  first = N // 2 + 1
  with pytest.raises(errors.UserError, match=f'image {first} of train is not'):
    list(pipeline.eval_batches(prepared, 'train', 7))


def test_evaluations_leave_no_file_open(tmp_path):
  prepared = _write_set(tmp_path, _numbered_images()[:6], 'jpeg')
  counts = []
  for _ in range(2):
    list(pipeline.eval_batches(prepared, 'validation', 3))
    counts.append(len(list(pathlib.Path('/proc/self/fd').iterdir())))
  assert counts[0] == counts[1]
