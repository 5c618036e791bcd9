"""What `prepare --check` finds, from the command line."""

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


def _run(monkeypatch, root: pathlib.Path, *options: str) -> None:
  argv = ['prepare', '--source=pictures', f'--data_dir={root}', *options]
  monkeypatch.setattr('sys.argv', argv)
  prepare.main()


def _complaint(monkeypatch, root: pathlib.Path, *options: str) -> str:
  """What the exit with a code of 1 says: one line."""
  with pytest.raises(SystemExit) as caught:
    _run(monkeypatch, root, *options)
  message = str(caught.value)
  assert message.startswith('error: ') and '\n' not in message
  return message


@pytest.mark.parametrize('encoding', [records.JPEG, records.RAW])
def test_a_good_set_passes(whole, monkeypatch, capsys, encoding):
  _run(monkeypatch, whole[encoding], '--check')
  summary = capsys.readouterr().out
  assert '3 + 2 images of 32 pixels' in summary and encoding in summary


def test_an_absent_set_is_named(monkeypatch, tmp_path):
  message = _complaint(monkeypatch, tmp_path, '--check')
  assert 'pictures' in message and str(tmp_path) in message
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['--encoding=raw', '--image_size=16'])
def test_a_set_prepared_otherwise_is_refused(whole, monkeypatch, option):
  root = whole[records.JPEG]
  assert option in _complaint(monkeypatch, root, option)
  # What it was prepared with is fine.
  _run(monkeypatch, root, '--encoding=jpeg', f'--image_size={SIZE}')


def _flipped(content: bytes) -> bytes:
  """One bit of the middle."""
  middle = len(content) // 2
  changed = bytes([content[middle] ^ 1])
  return content[:middle] + changed + content[middle + 1 :]


def _cut(content: bytes) -> bytes:
  return content[:-1]


def _no_file(content: bytes) -> None:
  del content


def _labels(change):
  """What a .npy becomes when its array is changed."""

  def changed(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, change(np.load(io.BytesIO(content))))
    return file.getvalue()

  return changed


def _other_statistics(content: bytes) -> bytes:
  with np.load(io.BytesIO(content)) as arrays:
    arrays = dict(arrays)
  arrays['rgb_covariance'][0, 1] += 1e-6
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


JPEG_SHARD = 'train-00001-of-00002.array_record'
RAW_SHARD = 'validation-00000-of-00001.raw'


@pytest.mark.parametrize(
  'encoding, name, change',
  [
    ('jpeg', JPEG_SHARD, _flipped),
    ('jpeg', JPEG_SHARD, _cut),
    ('jpeg', JPEG_SHARD, _no_file),
    ('raw', RAW_SHARD, _flipped),
    ('raw', RAW_SHARD, _cut),
    ('raw', RAW_SHARD, _no_file),
    ('raw', 'train_labels.npy', _labels(lambda labels: 1 - labels)),
    ('raw', 'train_labels.npy', _labels(lambda labels: labels + 1)),
    ('raw', 'train_labels.npy', _labels(lambda labels: labels - 1)),
    ('raw', 'train_labels.npy', _labels(lambda labels: labels[1:])),
    ('raw', 'train_labels.npy', _cut),
    ('raw', 'train_labels.npy', _no_file),
    ('raw', 'statistics.npz', _other_statistics),
    ('raw', 'statistics.npz', _flipped),
    ('raw', 'statistics.npz', _no_file),
    ('raw', 'info.json', lambda content: content[:40]),
  ],
)
def test_a_damaged_file_is_named(
  whole, monkeypatch, tmp_path, encoding, name, change
):
  root = tmp_path / 'data'
  shutil.copytree(whole[encoding], root)
  path = root / 'pictures' / name
  content = change(path.read_bytes())
  if content is None:
    path.unlink()
  else:
    path.write_bytes(content)
  assert str(path) in _complaint(monkeypatch, root, '--check')


def test_pixels_are_verified_where_a_split_opens_unless_they_are_many(
  whole, monkeypatch, tmp_path
):
  shutil.copytree(whole[records.RAW], tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'pictures' / RAW_SHARD
  path.write_bytes(_flipped(path.read_bytes()))
  with pytest.raises(errors.UserError, match=RAW_SHARD):
    records.open_prepared(tmp_path, 'pictures').open_split('validation')
  monkeypatch.setattr(records, '_MOST_VERIFIED', path.stat().st_size - 1)
  split = records.open_prepared(tmp_path, 'pictures').open_split('validation')
  assert len(split) == 2
