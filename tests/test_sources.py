"""Sources of pictures, and the fingerprints of their files."""

import concurrent.futures
import errno
import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import ml_collections
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from alexnet_jax.data import ilsvrc, images, prepare, records, shapes, sources
from configs import cifar10
from tests import pictures


@pytest.fixture(autouse=True)
def _place_for_litter(monkeypatch, tmp_path_factory):
  # TFDS leaves an empty directory behind for every builder.
  place = tmp_path_factory.mktemp('litter')
  monkeypatch.setattr(tempfile, 'tempdir', str(place))


def _opening_fails(name: str, **places: str) -> str:
  return pictures.refusal(sources.open_source, name, **places)


def _png(value: int) -> bytes:
  return pictures.png(np.full((4, 4, 3), value, np.uint8))


def _write(root: pathlib.Path, *paths: str) -> None:
  """Writes pictures that differ: the n-th is of grey level n."""
  pictures.write(root, {path: _png(n) for n, path in enumerate(paths)})


def _read(source: sources.Source, split: str, start: int = 0) -> list[dict]:
  return list(source.examples(split, start).as_numpy_iterator())


def _paths(source: sources.Source, split: str, root: pathlib.Path) -> list[str]:
  names = [example['name'].decode() for example in _read(source, split)]
  return [os.path.relpath(name, root.resolve()) for name in names]


@pytest.mark.parametrize('held_out', ['val', 'validation'])
def test_folder_with_splits(tmp_path, held_out):
  # The labels are those of the sorted names, whatever came first on disk.
  train = ['train/zebra/a.png', 'train/ape/b.JPEG', 'train/mole/c.jpg']
  held = [f'{held_out}/mole/d.png', f'{held_out}/zebra/e.PNG']
  _write(tmp_path, *train, *held, 'train/ape/notes.txt')
  source = sources.open_source(f'folder={tmp_path}')
  assert source.class_names == ('ape', 'mole', 'zebra')
  assert source.num_examples == {'train': 3, 'validation': 2}
  for split, paths in (('train', train), ('validation', held)):
    assert sorted(_paths(source, split, tmp_path)) == sorted(paths)
    for example in _read(source, split):
      path = pathlib.Path(example['name'].decode())
      assert ['ape', 'mole', 'zebra'][example['label']] == path.parent.name
      assert example['image'] == path.read_bytes()
    assert _read(source, split, 1) == _read(source, split)[1:]


def test_a_folder_for_evaluation_has_one_split(tmp_path):
  paths = ['cat/a.png', 'cat/train/b.png']  # one class is enough
  _write(tmp_path, *paths)
  name = f'test={tmp_path}'
  source = sources.open_source(name)
  assert source.num_examples == {'validation': 2}
  assert _paths(source, 'validation', tmp_path) == paths
  message = pictures.refusal(sources.describe, name)
  assert f'--mode=eval --config.data.name={name}' in message


def test_folder_without_splits_validates_a_tenth_by_hash(tmp_path):
  paths = [f'{c}/{i}.png' for c in ('a', 'b') for i in range(40)]
  _write(tmp_path, *paths)
  source = sources.open_source(f'folder={tmp_path}')
  held = {
    path
    for path in paths
    if int(hashlib.sha256(path.encode()).hexdigest(), 16) % 10 == 0
  }
  train = _paths(source, 'train', tmp_path)
  validation = _paths(source, 'validation', tmp_path)
  assert held and set(validation) == held
  assert sorted(train + validation) == sorted(paths)


def test_folders_that_cannot_work_are_named(tmp_path):
  missing, empty, stranger = (tmp_path / d for d in ('none', 'empty', 'odd'))
  (empty / 'train').mkdir(parents=True)
  (empty / 'val').mkdir()
  _write(stranger, 'train/ape/a.png', 'train/bee/a.png', 'val/yeti/c.png')
  for folder in (missing, empty, stranger):
    assert str(folder) in _opening_fails(f'folder={folder}')
  assert 'yeti' in _opening_fails(f'folder={stranger}')
  _write(stranger, 'train/cow/a.heic')
  message = _opening_fails(f'folder={stranger}')
  assert f'{stranger}/train/cow would be a class' in message
  assert 'has no path' in _opening_fails('folder=')


def _class_folders(*names: str) -> list[str]:
  return [f'{name}/{i}.png' for name in names for i in range(12)]


TWO = _class_folders('a', 'b')
# One e with an accent, and an e and an accent.
CAFE = ('caf\u00e9', 'cafe\u0301')


@pytest.mark.parametrize(
  'paths, named',
  [
    (_class_folders('train/a', 'train/b'), 'has train but not both'),
    (_class_folders('train/a', 'test/a', 'x'), 'has test, train but not both'),
    (_class_folders('train', 'test1'), 'has test1, train but not both'),
    (_class_folders('train/a', 'val', 'train/b'), 'val/0.png lies in no class'),
    (_class_folders('train/a', 'val/a', 'validation/a'), 'has both'),
    ([*TWO, 'x.png'], 'x.png lies in no class folder'),
    (_class_folders('a', 'a/b'), 'has the class a only'),
    (['a/0.png', 'b/1.png'], 'leaves none for validation'),
    (['a/0.png'], 'has the class a only'),
    ([*TWO, *_class_folders(*CAFE)], "'cafe\\u0301' and 'caf\\xe9'"),
    (
      _class_folders(*map('{}/b'.format, ('train', 'val')))
      + [f'train/{CAFE[0]}/0.png', f'val/{CAFE[1]}/0.png'],
      "'cafe\\u0301' and 'caf\\xe9'",
    ),
    ([*TWO, os.fsdecode(b'a/caf\xe9.png')], "caf\\xe9.png' is not in UTF-8"),
    ([*TWO, 'c\nd/0.png'], "'c\\nd', which is more than one line"),
    ([*TWO, 'c\u2028d/0.png'], 'which is more than one line'),
  ],
)
def test_a_layout_that_is_not_understood_is_named(tmp_path, paths, named):
  _write(tmp_path, *paths)
  message = _opening_fails(f'folder={tmp_path}')
  assert named in message and str(tmp_path) in message


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  _write(tmp_path, *TWO)
  scan = os.scandir

  def refuse(path):
    if str(path).endswith('/b'):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  message = _opening_fails(f'folder={tmp_path}')
  assert message.startswith(f'{tmp_path}/b cannot be read (Permission denied)')


def test_all_that_lies_in_class_folders_is_used_or_named(tmp_path, caplog):
  pictures_of_a = ['a/0.jpg', 'a/sub/x.tif', 'a/sub/deep/y.webp', 'a/z.jfif']
  pictures_of_a += ['a/w.jpe', 'a/v.tiff', 'a/x.jpg/u.bmp']
  # Trains are a class, if their pictures lie like those of others.
  paths = [f'{split}/{p}' for p in pictures_of_a for split in ('train', 'val')]
  _write(tmp_path, *paths, 'train/train/0.png')
  _write(tmp_path, 'train/a/._0.png', 'train/.hidden/0.png', '.DS_Store')
  source = sources.open_source(f'folder={tmp_path}')
  assert sorted(
    _paths(source, 'train', tmp_path) + _paths(source, 'validation', tmp_path)
  ) == sorted([*paths, 'train/train/0.png'])
  assert [e['label'] for e in _read(source, 'train')] == [0] * 7 + [1]
  assert not caplog.records
  _write(tmp_path, 'test/0.png', 'train/a/0.heic')
  sources.open_source(f'folder={tmp_path}')
  assert '2 other files are left alone, such as test/0.png' in caplog.text


def test_trains_are_a_class_beside_others(tmp_path):
  _write(tmp_path, *_class_folders('train', 'bus'))
  assert sources.describe(f'folder={tmp_path}') == (2, None)


@pytest.fixture
def no_network(monkeypatch):
  asked = []

  def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError('there is no network')

  monkeypatch.setattr(socket.socket, 'connect', refuse)
  monkeypatch.setattr(socket, 'getaddrinfo', refuse)
  yield
  assert not asked


def test_unknown_tfds_name_is_named(no_network, tmp_path):
  message = _opening_fails('no_such_set', tfds_dir=str(tmp_path))
  assert 'no_such_set' in message and 'folder=' in message


@pytest.mark.parametrize('there', [(), ('ILSVRC2012_img_val.tar',)])
def test_imagenet_tars_that_are_missing_are_named(no_network, tmp_path, there):
  tars = tmp_path / 'tars'
  tars.mkdir()
  for tar in there:
    (tars / tar).touch()
  message = _opening_fails(
    'imagenet2012', tfds_dir=str(tmp_path), manual_dir=str(tars)
  )
  missing, remedy = message.split(f'--manual_dir={tars}')
  for tar in ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'):
    assert tar in remedy and (tar in missing) == (tar not in there)
  assert 'image-net.org' in remedy


WNIDS = ('n01440764', 'n02007558', 'n15075141')
# Number of a validation image -> its label.
KAGGLE_LABELS = {1: 2, 2: 0, 3: 1, 4: 0}
KAGGLE_CSV = 'LOC_val_solution.csv'


@pytest.fixture
def kaggle(tmp_path) -> pathlib.Path:
  """A small ImageNet as Kaggle ships it, whose pictures all differ."""
  root = tmp_path / 'kaggle'
  paths = [f'train/{w}/{w}_{i}.JPEG' for w in WNIDS[::-1] for i in (7, 30)]
  paths += [f'val/ILSVRC2012_val_{n:08d}.JPEG' for n in KAGGLE_LABELS]
  contents = (pictures.smooth(i, 32, 32) for i in range(len(paths)))
  files = dict(zip(paths, map(pictures.jpeg, contents), strict=True))
  pictures.write(root / 'ILSVRC/Data/CLS-LOC', files)
  rows = ['ImageId,PredictionString']
  for number in sorted(KAGGLE_LABELS, reverse=True):
    box = f'{WNIDS[KAGGLE_LABELS[number]]} 85 1 499 272 '
    rows.append(f'ILSVRC2012_val_{number:08d},{box * number}')
  (root / KAGGLE_CSV).write_text('\n'.join(rows) + '\n')
  return root


def test_imagenet_as_kaggle_ships_it(no_network, tmp_path, kaggle):
  options = ['--source=imagenet2012', '--image_size=32', '--encoding=raw']
  options += [f'--manual_dir={kaggle}', f'--data_dir={tmp_path}']
  pictures.run_prepare(*options)
  pictures.run_prepare(*options)  # finds it prepared, from the same files
  prepared = records.open_prepared(str(tmp_path), 'imagenet2012')
  assert prepared.class_names == list(WNIDS)
  labels = {'train': [0, 0, 1, 1, 2, 2], 'validation': [2, 0, 1, 0]}
  globs = {'train': 'train/*/*', 'validation': 'val/*'}
  for split, pattern in globs.items():
    assert prepared.open_split(split).labels.tolist() == labels[split]
    paths = sorted(kaggle.glob(f'ILSVRC/Data/CLS-LOC/{pattern}.JPEG'))
    pixels = [images.decode(path.read_bytes()) for path in paths]
    np.testing.assert_array_equal(pictures.stored(prepared, split), pixels)
  csv = kaggle / KAGGLE_CSV
  csv.write_text(csv.read_text().replace(WNIDS[1], WNIDS[2]))
  message = pictures.refusal(pictures.run_prepare, *options)
  assert str(prepared.directory) in message and str(kaggle) in message


def test_mistakes_in_what_kaggle_ships_are_named(kaggle):
  csv = kaggle / KAGGLE_CSV
  good = csv.read_text()
  for pattern, replacement, named in (
    ('.*_00000003,.*\n', '', 'no class for ILSVRC2012_val_00000003.JPEG'),
    ('n02007558', 'n00000001', 'n00000001 for ILSVRC2012_val_00000003.JPEG'),
    ('(?s).*', 'no csv', 'no class for ILSVRC2012_val_00000001.JPEG'),
  ):
    csv.write_text(re.sub(pattern, replacement, good))
    message = _opening_fails('imagenet2012', manual_dir=str(kaggle))
    assert f'{csv} has {named}' in message
  for path in (csv, *kaggle.glob('ILSVRC/Data/CLS-LOC/*')):
    path.rename(kaggle / 'elsewhere')
    message = _opening_fails('imagenet2012', manual_dir=str(kaggle))
    assert message.startswith(str(path)) and 'not found' in message
    (kaggle / 'elsewhere').rename(path)


def test_tars_beside_the_folders_of_kaggle_win(kaggle, monkeypatch):
  assert ilsvrc.kaggle_folder(str(kaggle))
  monkeypatch.chdir(kaggle)
  assert ilsvrc.kaggle_folder('') is None
  _write(kaggle, 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar')
  monkeypatch.setattr(sources, '_tfds_source', lambda *given: given)
  given = ('imagenet2012', '', str(kaggle))
  assert sources.open_source(*given) == given
  of_tars = ilsvrc.fingerprint(str(kaggle))
  assert sources.fingerprint('imagenet2012', str(kaggle)) == of_tars


def test_imagenet_class_names_are_those_of_tfds_and_readable(tmp_path):
  label = tfds.builder('imagenet2012', data_dir=tmp_path).info.features['label']
  assert list(ilsvrc.class_names()) == label.names
  ids = ['n02123045', 'n03126707', 'n02012849', 'red']
  expected = ['tabby', 'crane', 'crane bird', 'red']  # WordNet 3.0's
  assert ilsvrc.readable_names(ids) == expected
  assert len(set(ilsvrc.class_names().values())) == 1000


def test_directory_names(tmp_path):
  name = sources.directory_name('imagenette/320px-v2')
  assert name == 'imagenette-320px-v2'
  one = sources.directory_name(f'folder={tmp_path / "a" / "pets"}')
  assert re.fullmatch('folder-pets-[0-9a-f]{8}', one)
  # Folders of one name in two places must not share a prepared set.
  assert one != sources.directory_name(f'folder={tmp_path / "b" / "pets"}')
  assert one == sources.directory_name(f'folder={tmp_path}/a/./pets/')


def test_tensorflow_is_imported_when_it_is_needed():
  program = 'import sys, main; from alexnet_jax.data import prepare, sources; '
  program += "sources.describe('shapes'); sys.exit('tensorflow' in sys.modules)"
  root = pathlib.Path(__file__).parents[1]
  subprocess.run([sys.executable, '-c', program], cwd=root, check=True)


def test_shapes_are_the_same_at_every_draw():
  train, again, validation = (
    np.stack([shapes.draw(split, i)[0] for i in order])
    for split, order in (
      ('train', range(20)),
      ('train', reversed(range(20))),
      ('validation', range(20)),
    )
  )
  np.testing.assert_array_equal(train, again[::-1])
  difference = np.abs(train.astype(int) - validation)
  assert difference.mean(axis=(1, 2, 3)).min() > 8
  assert len({image.tobytes() for image in train}) == 20


def test_shapes_source_has_ten_balanced_classes():
  source = sources.open_source('shapes')
  assert len(source.class_names) == len(set(source.class_names)) == 10
  for split, count in source.num_examples.items():
    dataset = source.examples(split, 0)
    assert dataset.cardinality() == count and count % 10 == 0
    examples = list(dataset.take(40).as_numpy_iterator())
    assert next(source.examples(split, 7).as_numpy_iterator()) == examples[7]
    assert np.bincount([e['label'] for e in examples]).tolist() == [4] * 10
    for index in (0, 39):
      image = tf.io.decode_png(examples[index]['image']).numpy()
      np.testing.assert_array_equal(image, shapes.draw(split, index)[0])


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Grey pictures; each config is named after the splits it has."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name)
    for name in ('train', 'test', 'train_test', 'train_validation_test')
  ]
  # Grey levels, of which the last digit is the label.
  LEVELS = {'train': range(12), 'validation': (40, 52), 'test': (81, 93, 90)}

  def _info(self):
    names = [f'class {i}' for i in range(10)]
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(4, 4, 3)),
          'label': tfds.features.ClassLabel(names=names),
        }
      )
    )

  def _split_generators(self, dl_manager):
    splits = self.builder_config.name.split('_')
    return {split: self._generate_examples(split) for split in splits}

  def _generate_examples(self, split):
    for level in self.LEVELS[split]:
      image = np.full((4, 4, 3), level, np.uint8)
      yield level, {'image': image, 'label': level % 10}


@pytest.mark.parametrize(
  ('config', 'held_out'),
  [('train_test', 'test'), ('train_validation_test', 'validation')],
)
def test_tfds_set(no_network, tmp_path, config, held_out):
  name = f'tiny_pictures/{config}'
  assert sources.describe(name) == (10, 4)
  source = sources.open_source(name, tfds_dir=str(tmp_path))
  assert source.native_size == 4 and source.class_names[3] == 'class 3'
  for split, stored in (('train', 'train'), ('validation', held_out)):
    levels = TinyPictures.LEVELS[stored]
    examples = _read(source, split)
    assert source.num_examples[split] == len(examples)
    images = [tf.io.decode_image(e['image']).numpy() for e in examples]
    assert sorted(image[0, 0, 0] for image in images) == sorted(levels)
    for image, example in zip(images, examples, strict=True):
      assert image.shape == (4, 4, 3) and (image == image[0, 0, 0]).all()
      assert image[0, 0, 0] % 10 == example['label']
    # Preparation goes on where it was killed: the order must hold.
    for start in (0, 1, len(examples) - 1):
      assert _read(source, split, start) == examples[start:]


def test_tfds_set_without_held_out_pictures(tmp_path):
  message = _opening_fails('tiny_pictures/train', tfds_dir=str(tmp_path))
  assert 'tiny_pictures/train' in message and "'test'" in message


def test_tfds_set_without_training_pictures(no_network, tmp_path):
  source = sources.open_source('tiny_pictures/test', tfds_dir=str(tmp_path))
  assert source.num_examples == {'validation': 3}


def test_a_tfds_set_is_built_by_one_process_at_a_time(tmp_path, monkeypatch):
  built, generate = [], TinyPictures._generate_examples

  def slowly(self, split):
    built.append(split)
    time.sleep(0.2)
    return generate(self, split)

  monkeypatch.setattr(TinyPictures, '_generate_examples', slowly)

  def count(_) -> int:
    source = sources.open_source('tiny_pictures/train_test', str(tmp_path))
    return source.num_examples['train']

  with concurrent.futures.ThreadPoolExecutor() as pool:
    assert list(pool.map(count, range(3))) == [12] * 3
  assert sorted(built) == ['test', 'train']


def test_tfds_keeps_to_the_tars_that_it_built_from(
  no_network, tmp_path, monkeypatch
):
  # Tars are those of the tiny set, for once.
  monkeypatch.setattr(sources, 'IMAGENET', TinyPictures.name)
  monkeypatch.setattr(ilsvrc, '_TARS', {'a.tar': '', 'b.tar': ''})
  name, tars = 'tiny_pictures/train_test', tmp_path / 'tars'
  places = {'tfds_dir': str(tmp_path / 'tfds'), 'manual_dir': str(tars)}
  _write(tars, 'a.tar')
  assert 'b.tar' in _opening_fails(name, **places)
  _write(tars, 'b.tar')
  for _ in range(2):
    assert sources.open_source(name, **places).num_examples['train'] == 12
  (tars / 'a.tar').write_bytes(b'other')
  message = _opening_fails(name, **places)
  assert f'--manual_dir={tars}' in message and places['tfds_dir'] in message
  sources.open_source(name, places['tfds_dir'])


@pytest.fixture
def tars(tmp_path) -> pathlib.Path:
  """Two files with the names of the ILSVRC tars."""
  names = ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar')
  texts = {name: f'the beginning and the end of {name}' for name in names}
  files = {name: text.encode() for name, text in texts.items()}
  pictures.write(tmp_path / 'tars', files)
  return tmp_path / 'tars'


def test_tars_differ_by_their_ends_and_sizes(tars, monkeypatch):
  monkeypatch.setattr(ilsvrc, '_BLOCK', 4)
  known = ilsvrc.fingerprint(str(tars))
  found = {known, ilsvrc.fingerprint(str(tars))}
  for tar in tars.iterdir():
    content = tar.read_bytes()
    longer = content.replace(b' and', b' and and')
    for other in (b'T' + content[1:], content[:-1] + b'R', longer):
      tar.write_bytes(other)
      found.add(ilsvrc.fingerprint(str(tars)))
    tar.write_bytes(content)
  assert len(found) == 1 + 2 * 3
  tar.unlink()
  assert ilsvrc.fingerprint(str(tars)) == ilsvrc.fingerprint('') == ''


def test_tars_are_compared_with_the_published_sums(tars, monkeypatch):
  train, validation = sorted(tars.iterdir())
  sums = {
    tar.name: hashlib.md5(tar.read_bytes()).hexdigest()
    for tar in (train, validation)
  }
  # These are not the published ones.
  assert str(train) in pictures.refusal(ilsvrc.verify, str(tars))
  monkeypatch.setattr(ilsvrc, '_TARS', sums)
  ilsvrc.verify(str(tars))
  validation.write_bytes(b'other')
  message = pictures.refusal(ilsvrc.verify, str(tars))
  assert str(validation) in message and sums[validation.name] in message
  validation.unlink()
  assert validation.name in pictures.refusal(ilsvrc.verify, str(tars))


def test_imagenet_from_other_tars_is_refused(tmp_path, tars):
  known = ilsvrc.fingerprint(str(tars))
  source = pictures.source([_png(0)], name='imagenet2012', fingerprint=known)
  prepared = prepare.prepare(source, str(tmp_path), 4)
  options = ['--source=imagenet2012', f'--data_dir={tmp_path}']
  pictures.run_prepare(*options, f'--manual_dir={tars}')
  (tars / 'ILSVRC2012_img_val.tar').write_bytes(b'other')
  directory = str(prepared.directory)
  for refused, *arguments in (
    (prepare.check_origin, prepared, str(tars)),
    (pictures.run_prepare, *options, f'--manual_dir={tars}'),
  ):
    assert directory in pictures.refusal(refused, *arguments)
  # Without the tars, there is nothing to compare.
  prepare.check_origin(prepared, '')


@pytest.mark.parametrize(
  'path, content',
  [('train/a/new.png', _png(0)), ('val/a/2.png', _png(2) + b'.')],
)
def test_a_folder_that_has_changed_is_refused(tmp_path, path, content):
  folder = tmp_path / 'folder'
  _write(folder, 'train/a/0.png', 'train/b/1.png', 'val/a/2.png')
  fields = {'name': f'folder={folder}', 'dir': str(tmp_path), 'image_size': 4}
  data = ml_collections.ConfigDict(fields | {'tfds_dir': '', 'manual_dir': ''})
  prepared = prepare.open_or_prepare(data)
  prepare.check_origin(prepared, '')
  pictures.write(folder, {path: content})
  message = pictures.refusal(prepare.check_origin, prepared, '')
  assert str(prepared.directory) in message and str(folder) in message
  # So is one that could not be prepared any more.
  for picture in (folder / 'train/a').iterdir():
    picture.unlink()
  assert pictures.refusal(prepare.check_origin, prepared, '') == message
  # A folder that has gone is not missed.
  shutil.rmtree(folder)
  assert prepared.info['fingerprint'] and sources.fingerprint(data.name) == ''
  assert prepare.open_or_prepare(data).info == prepared.info


def test_a_config_needs_no_pictures_that_are_prepared(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'folder'
  _write(folder, 'train/a/0.png', 'train/b/1.png', 'val/a/2.png')
  name = f'folder={folder}'
  before = cifar10.get_config(name)
  prepare.open_or_prepare(before.data)
  for gone in (folder / 'train/b', folder):
    shutil.rmtree(gone)
    assert cifar10.get_config(name).to_json() == before.to_json()
