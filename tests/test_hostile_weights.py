"""Weight files that were made to do harm are refused, in a sentence."""

import io
import json
import pathlib
import struct
import zipfile

import numpy as np
import pytest

from alexnet_jax import errors
from alexnet_jax.weights import publish, weight_files
from tests.caffe_files import blob, block, varint

_META = {
  'channel_order': 'RGB',
  'mean': [1.0, 2.0, 3.0],
  'scale': [64.0, 64.0, 64.0],
  'crop_size': 224,
  'class_names': ['a', 'b'],
}


def _refused(path: pathlib.Path) -> str:
  with pytest.raises(errors.UserError, match='give another file') as caught:
    weight_files.read(path)
  return str(caught.value)


class _Runs:
  """Unpickled, it makes a file."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self._path,)


def test_no_pickle_is_run(tmp_path):
  torch = pytest.importorskip('torch')
  path, proof = tmp_path / 'a.pth', tmp_path / 'proof'
  for is_zip in (True, False):
    content = {'conv1.weight': torch.zeros(1), 'more': _Runs(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert 'could run code' in _refused(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)  # it would have been
    proof.unlink()


def test_changed_bytes_end_in_a_sentence(tmp_path):
  """Or in numbers, where they lie in those: the format has no digests."""
  torch = pytest.importorskip('torch')
  whole, rng = tmp_path / 'a.pth', np.random.default_rng(0)
  torch.save({f'conv{i}.weight': torch.ones(2) for i in range(3)}, whole)
  content, failed = whole.read_bytes(), 0
  for number in range(300):
    changed = bytearray(content)
    for place in rng.integers(0, len(content), 3):
      changed[place] = rng.integers(256)
    path = tmp_path / f'{number}.pth'
    path.write_bytes(changed)
    try:
      weight_files.read(path)
    except errors.UserError:
      failed += 1
  assert failed > 30


@pytest.mark.parametrize('kind', ['integer keys', 'sparse', 'meta', 'complex'])
def test_tensors_that_are_no_weights_are_refused(tmp_path, kind):
  torch = pytest.importorskip('torch')
  content = {
    'integer keys': {1: torch.ones(2)},
    'sparse': {'a': torch.eye(2).to_sparse()},
    'meta': {'a': torch.ones(2, device='meta')},
    'complex': {'a': torch.ones(2) * 1j},
  }[kind]
  torch.save(content, tmp_path / 'a.pth')
  _refused(tmp_path / 'a.pth')


def test_archives_write_nothing(tmp_path):
  torch = pytest.importorskip('torch')
  saved = io.BytesIO()
  torch.save({'conv1.weight': torch.ones(2)}, saved)
  path = tmp_path / 'in' / 'a.pth'
  path.parent.mkdir()
  path.write_bytes(saved.getvalue())
  with zipfile.ZipFile(path, 'a') as archive:
    for name in ('../out', f'{tmp_path}/out', 'a/../../out'):
      archive.writestr(name, b'out')
  _refused(path)
  assert list(tmp_path.iterdir()) == [path.parent]
  assert list(path.parent.iterdir()) == [path]


def _safetensors(header: bytes, length: int | None = None) -> bytes:
  return struct.pack('<Q', length or len(header)) + header + bytes(64)


def _entry(shape: list[int], begin: int, end: int) -> dict:
  return {'dtype': 'F32', 'shape': shape, 'data_offsets': [begin, end]}


@pytest.mark.parametrize(
  'content',
  [
    _safetensors(b'{}', 2**63),
    _safetensors(b'{}', 2**40),
    _safetensors(b'{"a":' * 10**5),
    _safetensors(json.dumps({'a': _entry([2**40], 0, 64)}).encode()),
    _safetensors(json.dumps({'a': _entry([2**62, 4], 0, 64)}).encode()),
    _safetensors(json.dumps({'a': _entry([16], 0, 2**50)}).encode()),
    _safetensors(json.dumps({'a': _entry([16], -64, 0)}).encode()),
    _safetensors(
      json.dumps({'a': _entry([16], 0, 64), 'b': _entry([8], 16, 48)}).encode()
    ),
  ],
  ids=[
    'header of 2**63',
    'header of 2**40',
    'nested',
    'shape of 2**40',
    'shape overflows',
    'end beyond the file',
    'begins before the data',
    'overlap',
  ],
)
def test_headers_are_not_believed(tmp_path, content):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content)
  _refused(path)


def _net(array: bytes) -> bytes:
  return block(100, block(1, b'conv1') + block(7, array))


def _shaped(*dims: int) -> bytes:
  shape = b''.join(b'\x08' + varint(dim % 2**64) for dim in dims)
  return block(7, shape) + block(5, np.ones(4, 'f').tobytes())


@pytest.mark.parametrize(
  'content',
  [
    _net(_shaped(2**40)),
    _net(_shaped(2**62, 4)),
    _net(_shaped(-1, 2)),
    _net(blob(np.ones(4, 'f'), True)[:-1]),
    b'\xa2\x06' + varint(2**31 - 1) + b'a',
    b'\xa3\x06' * 10**5,
  ],
  ids=['large', 'overflows', 'negative', 'cut', 'long', 'nested'],
)
def test_caffes_lengths_are_not_believed(tmp_path, content):
  path = tmp_path / 'a.caffemodel'
  path.write_bytes(content)
  _refused(path)


@pytest.mark.parametrize(
  'change',
  [
    {'mean': [1.0, 2.0]},
    {'mean': [1.0, 2.0, float('nan')]},
    {'mean': [1e308, 1.0, 2.0]},
    {'mean': [10**400, 1.0, 2.0]},
    {'mean': ['1', '2', '3']},
    {'mean': 'abc'},
    {'scale': [64.0, 64.0, 0.0]},
    {'channel_order': 'GBR'},
    {'channel_order': ['RGB']},
    {'crop_size': None},
    {'crop_size': -5},
    {'crop_size': True},
    {'class_names': 'ab'},
    {'class_names': [1, 2]},
  ],
  ids=str,
)
def test_metadata_are_not_believed(change):
  metadata = {k: json.dumps(v) for k, v in (_META | change).items()}
  with pytest.raises(errors.UserError, match='metadata'):
    publish.read_metadata(metadata)


def test_metadata_that_nest_are_refused():
  metadata = {k: json.dumps(v) for k, v in _META.items()}
  assert publish.read_metadata(metadata) == _META
  with pytest.raises(errors.UserError, match='metadata'):
    publish.read_metadata(metadata | {'mean': '[' * 10**5})
