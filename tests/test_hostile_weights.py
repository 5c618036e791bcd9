"""Weight files that were made to do harm are refused, in a sentence."""

import json
import pathlib
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from alexnet_jax import errors
from alexnet_jax.weights import weight_files
from tests.caffe_files import blob, block, caffemodel, varint

_META = {
  'channel_order': 'RGB',
  'mean': [1.0, 2.0, 3.0],
  'scale': [64.0, 64.0, 64.0],
  'crop_size': 224,
  'class_names': ['a', 'b'],
}
_ARRAYS = {
  f'conv{i}.{leaf}': np.ones(2, np.float32)
  for i in range(3)
  for leaf in ('weight', 'bias')
}


def _refused(path: pathlib.Path, content: bytes) -> None:
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='give another file'):
    weight_files.read(path)


def _content(suffix: str) -> bytes:
  if suffix == '.caffemodel':
    return caffemodel(_ARRAYS, new=True)
  return safetensors.numpy.save(_ARRAYS, {'a': 'b'})


@pytest.mark.parametrize(
  'array',
  [
    np.array([1, np.nan], np.float32),
    np.array([np.inf, 1], np.float16),
    np.array([1e300, 1]),  # infinite in float32
    np.array([1, 2]),
    np.array([True, False]),
  ],
  ids=str,
)
def test_what_is_no_finite_float_is_named(tmp_path, array):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(safetensors.numpy.save(_ARRAYS | {'conv9.weight': array}))
  with pytest.raises(
    errors.UserError, match='conv9.weight (is of|has numbers)'
  ):
    weight_files.read(path)


def test_a_caffemodel_with_no_number_is_named(tmp_path):
  path = tmp_path / 'a.caffemodel'
  bad = _ARRAYS | {'conv2.bias': np.array([1, np.nan], np.float32)}
  path.write_bytes(caffemodel(bad, new=True))
  with pytest.raises(errors.UserError, match='conv2.bias has numbers'):
    weight_files.read(path)


class _Runs:
  """Unpickled, it makes a file."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self._path,)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_no_pickle_is_run(tmp_path, suffix):
  path, proof = tmp_path / f'a{suffix}', tmp_path / 'proof'
  path.write_bytes(pickle.dumps(_Runs(proof)))
  with pytest.raises(errors.UserError):
    weight_files.read(path)
  assert not proof.exists()
  pickle.loads(path.read_bytes())  # it would have been
  assert proof.exists()


@pytest.mark.parametrize('suffix', ['.safetensors', '.caffemodel'])
def test_changed_bytes_end_in_a_sentence(tmp_path, suffix):
  """Or in numbers, if they lie there: the formats have no digests."""
  content, rng, failed = _content(suffix), np.random.default_rng(0), 0
  path = tmp_path / f'a{suffix}'
  for _ in range(300):
    changed = bytearray(content)
    for place in rng.integers(0, len(content), 3):
      changed[place] = rng.integers(256)
    path.write_bytes(changed)
    try:
      weight_files.read(path)
    except errors.UserError:
      failed += 1
  assert failed > 30


@pytest.mark.parametrize('suffix', ['.safetensors', '.caffemodel'])
def test_cut_files_and_other_files_end_in_a_sentence(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  for content in (b'', b'no weights', bytes(range(256)), _content(suffix)[:-9]):
    _refused(path, content)


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
  _refused(tmp_path / 'a.safetensors', content)


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
  _refused(tmp_path / 'a.caffemodel', content)


def _read_metadata(path: pathlib.Path, texts: dict[str, str]) -> dict:
  safetensors.numpy.save_file(_ARRAYS, path, texts)
  _, metadata = weight_files.read(path)
  return metadata


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
def test_metadata_are_not_believed(tmp_path, change):
  texts = {k: json.dumps(v) for k, v in (_META | change).items()}
  with pytest.raises(errors.UserError, match='metadata'):
    _read_metadata(tmp_path / 'a.safetensors', texts)


def test_metadata_that_nest_are_refused(tmp_path):
  path = tmp_path / 'a.safetensors'
  texts = {k: json.dumps(v) for k, v in _META.items()}
  assert _read_metadata(path, texts) == _META
  with pytest.raises(errors.UserError, match='metadata'):
    _read_metadata(path, texts | {'mean': '[' * 10**5})
