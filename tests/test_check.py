"""The command `python -m alexnet_jax.data.prepare`, and what --check finds."""

import io
import pathlib
import shutil

import numpy as np
import pytest

from alexnet_jax import errors
from alexnet_jax.data import prepare, records
from tests import pictures

SIZE = 32


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict[str, pathlib.Path]:
  """A root with a prepared set of each encoding."""
  encoded = [pictures.png(pictures.smooth(i, SIZE, SIZE)) for i in range(5)]
  source = pictures.source(encoded[:3], encoded[3:])
  roots = {}
  for encoding in (records.JPEG, records.RAW):
    roots[encoding] = tmp_path_factory.mktemp(encoding)
    prepare.prepare(source, str(roots[encoding]), SIZE, encoding, shard_size=2)
  return roots


def _run(root: pathlib.Path, *options: str) -> None:
  pictures.run_prepare('--source=pictures', f'--data_dir={root}', *options)


@pytest.mark.parametrize('encoding', [records.JPEG, records.RAW])
def test_a_good_set_passes(whole, capsys, encoding):
  _run(whole[encoding], '--check')
  summary = capsys.readouterr().out
  assert '3 + 2 images of 32 pixels' in summary and encoding in summary


def test_an_absent_set_or_source_is_named(tmp_path):
  message = pictures.refusal(_run, tmp_path, '--check')
  assert 'pictures' in message and str(tmp_path) in message
  assert '--source is missing' in pictures.refusal(_run, tmp_path, '--source=')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['--encoding=raw', '--image_size=16'])
def test_a_set_prepared_otherwise_is_refused(whole, option):
  root = whole[records.JPEG]
  assert option in pictures.refusal(_run, root, option)
  # What it was prepared with is fine.
  _run(root, '--encoding=jpeg', f'--image_size={SIZE}')


def _flipped(content: bytes) -> bytes:
  """Flips one bit in the middle."""
  middle = len(content) // 2
  changed = bytes([content[middle] ^ 1])
  return content[:middle] + changed + content[middle + 1 :]


def _cut(content: bytes) -> bytes:
  return content[:-1]


def _deleted(content: bytes) -> None:
  del content


def _other_labels(content: bytes) -> bytes:
  file = io.BytesIO()
  np.save(file, 1 - np.load(io.BytesIO(content)))
  return file.getvalue()


def _change(path: pathlib.Path, change) -> None:
  content = change(path.read_bytes())
  path.unlink()
  if content is not None:
    path.write_bytes(content)


JPEG_SHARD = 'train-00001-of-00002.array_record'
RAW_SHARD = 'validation-00000-of-00001.raw'


@pytest.mark.parametrize(
  'encoding, name, change',
  [
    ('jpeg', JPEG_SHARD, _flipped),
    ('jpeg', JPEG_SHARD, _cut),
    ('jpeg', JPEG_SHARD, _deleted),
    ('raw', RAW_SHARD, _flipped),
    ('raw', RAW_SHARD, _cut),
    ('raw', RAW_SHARD, _deleted),
    ('raw', 'train_labels.npy', _other_labels),
    ('raw', 'train_labels.npy', _deleted),
    ('raw', 'statistics.npz', _flipped),
    ('raw', 'info.json', lambda content: content[:40]),
  ],
)
def test_a_damaged_file_is_named(whole, tmp_path, encoding, name, change):
  root = tmp_path / 'data'
  shutil.copytree(whole[encoding], root)
  _change(root / 'pictures' / name, change)
  assert str(root / 'pictures' / name) in pictures.refusal(
    _run, root, '--check'
  )


def test_statistics_of_other_images_are_named(whole, monkeypatch):
  def other(prepared: records.PreparedSet) -> dict[str, np.ndarray]:
    with np.load(prepared.directory / 'statistics.npz') as arrays:
      covariance = arrays['rgb_covariance']
      covariance[0, 1] += 1e-6
      return dict(arrays) | {'rgb_covariance': covariance}

  monkeypatch.setattr(records.PreparedSet, 'statistics', other)
  message = pictures.refusal(_run, whole[records.RAW], '--check')
  assert 'statistics.npz has another rgb_covariance' in message


def test_pixels_are_verified_where_a_split_opens_unless_they_are_many(
  whole, monkeypatch, tmp_path
):
  shutil.copytree(whole[records.RAW], tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'pictures' / RAW_SHARD
  _change(path, _flipped)
  with pytest.raises(errors.UserError, match=RAW_SHARD):
    records.open_prepared(tmp_path, 'pictures').open_split('validation')
  monkeypatch.setattr(records, '_MAX_VERIFIED', path.stat().st_size - 1)
  split = records.open_prepared(tmp_path, 'pictures').open_split('validation')
  assert len(split) == 2
