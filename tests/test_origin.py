"""Prepared sets remember which files they are from."""

import hashlib
import shutil

import ml_collections
import pytest

from alexnet_jax import errors
from alexnet_jax.data import ilsvrc, prepare, sources
from tests import pictures

SIZE = 16
PICTURE = pictures.png(pictures.smooth(0, SIZE, SIZE))
TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / 'folder'
  for path in ('train/a/0.png', 'train/a/1.png', 'val/a/2.png'):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(PICTURE)
  return root


@pytest.fixture
def tars(tmp_path):
  """Two files with the names of the ILSVRC tars."""
  root = tmp_path / 'tars'
  root.mkdir()
  for tar in (TRAIN, VALIDATION):
    (root / tar).write_bytes(f'the beginning and the end of {tar}'.encode())
  return root


def _data(tmp_path, name: str, manual_dir='') -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(
    {
      'name': name,
      'dir': str(tmp_path / 'data'),
      'image_size': SIZE,
      'tfds_dir': '',
      'manual_dir': str(manual_dir),
    }
  )


def _refusal(function, *args) -> str:
  """The message of a UserError, which is one line."""
  with pytest.raises(errors.UserError) as failure:
    function(*args)
  assert '\n' not in str(failure.value)
  return str(failure.value)


@pytest.mark.parametrize(
  'path, content',
  [('train/a/new.png', PICTURE), ('val/a/2.png', PICTURE + b'.')],
)
def test_a_folder_that_has_changed_is_refused(tmp_path, folder, path, content):
  data = _data(tmp_path, f'folder={folder}')
  prepared = prepare.open_or_prepare(data)
  prepare.check_origin(prepared, '')
  (folder / path).write_bytes(content)
  message = _refusal(prepare.check_origin, prepared, '')
  assert str(prepared.directory) in message and str(folder) in message


def test_a_folder_that_has_gone_is_not_missed(tmp_path, folder):
  data = _data(tmp_path, f'folder={folder}')
  prepared = prepare.open_or_prepare(data)
  assert prepared.info['fingerprint']
  shutil.rmtree(folder)
  assert sources.fingerprint(data.name) == ''
  assert prepare.open_or_prepare(data).info == prepared.info


@pytest.mark.parametrize('tar', [TRAIN, VALIDATION])
@pytest.mark.parametrize(
  'change',
  [
    lambda content: b'T' + content[1:],
    lambda content: content[:-1] + b'R',
    lambda content: content.replace(b' and', b' and and'),
  ],
)
def test_tars_differ_by_their_ends_and_sizes(tars, monkeypatch, tar, change):
  monkeypatch.setattr(ilsvrc, '_BLOCK', 4)
  known = ilsvrc.fingerprint(str(tars))
  assert known and known == ilsvrc.fingerprint(str(tars))
  (tars / tar).write_bytes(change((tars / tar).read_bytes()))
  assert ilsvrc.fingerprint(str(tars)) != known


def test_tars_that_are_not_there_have_no_fingerprint(tars):
  (tars / TRAIN).unlink()
  assert ilsvrc.fingerprint(str(tars)) == ilsvrc.fingerprint('') == ''


def test_tars_are_compared_with_the_published_sums(tars, monkeypatch):
  sums = {
    tar: hashlib.md5((tars / tar).read_bytes()).hexdigest()
    for tar in (TRAIN, VALIDATION)
  }
  # These are not the published ones.
  assert str(tars / TRAIN) in _refusal(ilsvrc.verify, str(tars))
  monkeypatch.setattr(ilsvrc, '_TARS', sums)
  ilsvrc.verify(str(tars))
  (tars / VALIDATION).write_bytes(b'other')
  message = _refusal(ilsvrc.verify, str(tars))
  assert str(tars / VALIDATION) in message and sums[VALIDATION] in message
  (tars / VALIDATION).unlink()
  assert VALIDATION in _refusal(ilsvrc.verify, str(tars))


def test_imagenet_from_other_tars_is_refused(tmp_path, tars, monkeypatch):
  data = _data(tmp_path, 'imagenet2012', tars)
  argv = ['prepare', '--source=imagenet2012', f'--data_dir={data.dir}']
  monkeypatch.setattr('sys.argv', [*argv, f'--manual_dir={tars}'])
  prepared = prepare.prepare(
    pictures.source(
      [PICTURE],
      name='imagenet2012',
      fingerprint=ilsvrc.fingerprint(str(tars)),
    ),
    data.dir,
    SIZE,
  )
  prepare.main()
  prepare.open_or_prepare(data)
  (tars / VALIDATION).write_bytes(b'other')
  directory = str(prepared.directory)
  with pytest.raises(SystemExit, match=directory) as caught:
    prepare.main()
  assert str(caught.value).startswith('error: ')
  assert directory in _refusal(prepare.check_origin, prepared, str(tars))
  # Without the tars, there is nothing to compare.
  prepare.check_origin(prepared, '')
