"""Sources of pictures: TFDS, folders of class folders, drawn shapes.

A source is named as in `--config.data.name`:

    imagenet2012, cifar10, imagenette/320px-v2   any TFDS classification set
    folder=/my/images                            a folder of class folders
    test=/my/images                              the same, for evaluation only
    shapes                                       the embedded drawn set

A folder holds `train/` and `validation/` (or `val/`), each with a folder per
class. Without both it holds the class folders themselves, and every image
whose path hashes to 0 modulo 10 is for validation. With `test=` the folder
holds class folders, and every image is for validation. Images may lie in
folders within a class folder; hidden files and folders do not count. TFDS
builds `imagenet2012` from the tars of image-net.org; without the tars, Kaggle's
folders are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import tarfile
import unicodedata
from collections.abc import Callable, Iterator

from absl import logging

from alexnet_jax import errors, locks, paths
from alexnet_jax.data import ilsvrc, images, shapes
from alexnet_jax.data.lazy import tf, tfds

IMAGENET = 'imagenet2012'
_FOLDER = 'folder='
_TEST = 'test='
_HELD_OUT = ('validation', 'val')
# Names of folders that hold a split rather than a class.
SPLIT_FOLDER = re.compile(
  r'(train|val|valid|validation|test)(ing)?\d*', re.IGNORECASE
)
# Split -> paths of its images, in order -> names of their classes.
Splits = dict[str, dict[pathlib.Path, str]]


@dataclasses.dataclass(frozen=True)
class Source:
  """Source of pictures with labels.

  Attributes:
    name: Name of the source, as in `config.data.name`.
    class_names: Names of the classes, by label.
    native_size: Side of the pictures if all are squares of one size, else None.
    num_examples: {'train': count, 'validation': count}, without 'train' if the
      source is for evaluation only.
    examples: Function of (split, start) that returns a dataset of {'image':
      encoded bytes, 'label', 'name'} in a fixed order, from number `start` on.
    fingerprint: Digest that tells its files from others, see `fingerprint`.
  """

  name: str
  class_names: tuple[str, ...]
  native_size: int | None
  num_examples: dict[str, int]
  examples: Callable[[str, int], tf.data.Dataset]
  fingerprint: str = ''


def directory_name(name: str) -> str:
  """Returns the name of a source's directory under `data.dir`."""
  if not name.startswith((_FOLDER, _TEST)):
    return name.replace('/', '-')
  path = _folder(name)
  digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
  return f'{name.partition("=")[0]}-{path.name}-{digest}'


def describe(name: str) -> tuple[int, int | None]:
  """Returns a source's number of classes and native size.

  No picture is read for that.

  Raises:
    UserError: If there is no such source.
  """
  if name == 'shapes':
    return len(shapes.CLASS_NAMES), shapes.SIZE
  if name.startswith(_TEST):
    raise errors.UserError(
      f'{name} is for evaluation only: give --mode=eval '
      f'--config.data.name={name}, or folder=PATH to train on it.'
    )
  if name.startswith(_FOLDER):
    return len(_class_names(_folder_splits(name)['train'])), None
  info = _builder(name, '').info
  return _label_feature(name, info).num_classes, _native_size(info)


def open_source(name: str, tfds_dir: str = '', manual_dir: str = '') -> Source:
  """Opens a source; TFDS downloads or builds its own copy where it must.

  Args:
    name: Name of the source, as in `config.data.name`.
    tfds_dir: Directory where TFDS keeps its sets; '' for TFDS's default.
    manual_dir: Directory of the ILSVRC tars or of Kaggle's ILSVRC/.

  Raises:
    UserError: If the source does not exist or files of it are missing.
  """
  if name == 'shapes':
    return _shapes_source()
  if files := _files(name, manual_dir):
    return _files_source(name, *files)
  return _tfds_source(name, tfds_dir, manual_dir)


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the images in a folder and in the folders within it, sorted.

  Raises:
    UserError: If a folder cannot be read, or a path is not in UTF-8.
  """
  return sorted(filter(_is_image, _files_below(folder)))


def _is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in images.SUFFIXES


def _files_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the files in a folder and in the folders within it.

  Hidden ones are left out, such as those that macOS puts beside others. Links
  to folders count as files.
  """
  for place, folders, files in os.walk(folder, onerror=_refuse):
    files += [name for name in folders if os.path.islink(f'{place}/{name}')]
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in files:
      if not name.startswith('.'):
        yield _in_utf8(pathlib.Path(place, name))


def _refuse(error: OSError) -> None:
  """Raises UserError for a folder that cannot be read."""
  raise errors.UserError(
    f'{error.filename} cannot be read ({error.strerror}); make it readable, or '
    'move it away.'
  ) from error


def _in_utf8(path: pathlib.Path) -> pathlib.Path:
  """Returns a path, or raises UserError if it cannot be written as text."""
  try:
    str(path).encode()
  except UnicodeEncodeError as error:
    raise errors.UserError(
      f'{os.fsencode(path)!r} is not in UTF-8; rename it.'
    ) from error
  return path


def fingerprint(name: str, manual_dir: str = '') -> str:
  """Returns a digest that tells a source's files from others.

  No file is read as a whole. The digest covers sizes and both ends of ILSVRC's
  tars; of a folder it covers paths, sizes and classes of the images.

  Args:
    name: Name of the source, as in `config.data.name`.
    manual_dir: Directory of the ILSVRC tars or of Kaggle's ILSVRC/.

  Returns:
    '' if there is nothing to compare: for drawn sets, for sets that TFDS
    downloads (and checks) itself, and for files that are no longer there.
  """
  is_folder = name.startswith((_FOLDER, _TEST))
  if is_folder and not _folder(name).is_dir():
    return ''
  if files := _files(name, manual_dir):
    return _fingerprint(*files)
  return ilsvrc.fingerprint(manual_dir) if name == IMAGENET else ''


def _fingerprint(root: pathlib.Path, splits: Splits) -> str:
  digest = hashlib.sha256()
  for split, files in splits.items():
    for path, class_name in files.items():
      place = path.relative_to(root).as_posix()
      size = path.stat().st_size if path.exists() else None
      digest.update(f'{split} {place} {size}\n'.encode())
      if class_name != path.parent.name:
        digest.update(f'{class_name}\n'.encode())
  return digest.hexdigest()


def _shapes_source() -> Source:
  def draw(split: str, index: tf.Tensor) -> dict[str, tf.Tensor]:
    image, label = tf.numpy_function(
      lambda i: shapes.draw(split, int(i)),
      [index],
      [tf.uint8, tf.int64],
      stateful=False,
    )
    image = tf.ensure_shape(image, (shapes.SIZE, shapes.SIZE, 3))
    return {
      'image': tf.io.encode_png(image, compression=0),
      'label': label,
      'name': tf.strings.join(['shapes/', split, '/', tf.as_string(index)]),
    }

  def examples(split: str, start: int) -> tf.data.Dataset:
    indices = tf.data.Dataset.range(start, shapes.NUM_EXAMPLES[split])
    return indices.map(
      lambda index: draw(split, index), num_parallel_calls=tf.data.AUTOTUNE
    )

  return Source(
    'shapes', shapes.CLASS_NAMES, shapes.SIZE, shapes.NUM_EXAMPLES, examples
  )


def _files(name: str, manual_dir: str) -> tuple[pathlib.Path, Splits] | None:
  """Finds a source's folder and images; None if TFDS or we make the images."""
  if name.startswith((_FOLDER, _TEST)):
    return _folder(name), _folder_splits(name)
  if name == IMAGENET and (folder := ilsvrc.kaggle_folder(manual_dir)):
    held_out = ilsvrc.kaggle_validation(folder)
    return folder, {'train': _images(folder / 'train'), 'validation': held_out}
  return None


def _folder(name: str) -> pathlib.Path:
  kind, _, path = name.partition('=')
  if not path:
    raise errors.UserError(f'data.name={name} has no path; give {kind}=PATH.')
  return paths.local(kind, path)


def _folder_splits(name: str) -> Splits:
  """Finds the images of a folder, sorted in each split."""
  root = _folder(name)
  if not root.is_dir():
    raise errors.UserError(
      f'data.name={name}: {root} is no folder; give one with a folder of '
      'images for each class.'
    )
  if name.startswith(_TEST):
    return {'validation': _images(root)}
  held_out = [split for split in _HELD_OUT if (root / split).is_dir()]
  if len(held_out) > 1:
    raise errors.UserError(
      f'{root} has both {" and ".join(held_out)}; keep one of them.'
    )
  if (root / 'train').is_dir() and held_out:
    places = {'train': 'train', 'validation': held_out[0]}
    splits = {split: _images(root / place) for split, place in places.items()}
  else:
    splits = _hashed_splits(root)
  _check_class_names(root, splits)
  _check_none_is_empty(root, splits)
  return splits


def _images(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """Finds the images of all class folders, sorted, with their classes."""
  found, names = {}, []
  for _, folders, files in os.walk(root, onerror=_refuse):
    names = sorted(folders + files)
    break
  for path in (root / name for name in names if not name.startswith('.')):
    if path.is_dir():
      own = find_images(path)
      if not own:
        raise errors.UserError(
          f'{path} would be a class but has no pictures '
          f'({", ".join(images.SUFFIXES)}); give class folders that have some, '
          'or such folders in train/ and validation/.'
        )
      found |= dict.fromkeys(own, path.name)
    elif _is_image(path):
      raise errors.UserError(
        f'{path} lies in no class folder; put it into the one of its class, or '
        'move it away.'
      )
  if not found:
    raise errors.UserError(
      f'{root} has no folders of images; give one with a folder for each class.'
    )
  return found


def _hashed_splits(root: pathlib.Path) -> Splits:
  """Divides the images of class folders by the hashes of their paths."""
  found = _images(root)
  _check_no_splits(root, found)
  splits = {'train': {}, 'validation': {}}
  for path, class_name in found.items():
    splits[_hashed_split(path.relative_to(root))][path] = class_name
  return splits


def _check_none_is_empty(root: pathlib.Path, splits: Splits) -> None:
  """Raises UserError if the hashes leave no image for a split."""
  for split, files in splits.items():
    if not files:
      raise errors.UserError(
        f'{root} has {sum(map(len, splits.values()))} images, and drawing a '
        f'tenth for validation leaves none for {split}; add images, or divide '
        'them into train/ and validation/.'
      )


def _check_no_splits(
  root: pathlib.Path, found: dict[pathlib.Path, str]
) -> None:
  """Raises UserError if folders look like train/ or test/, not like classes."""
  classes = set(found.values())
  odd = set(filter(SPLIT_FOLDER.fullmatch, classes))
  # A class may well be of trains: its pictures lie beside those of others.
  flat = {path.parent.name for path in found if path.parent.parent == root}
  if odd - flat or odd == classes:
    raise errors.UserError(
      f'{root} has {errors.listed(odd)} but not both train/ and validation/; '
      'give both, each with a folder for each class, or the class folders '
      'alone.'
    )


def _check_class_names(root: pathlib.Path, splits: Splits) -> None:
  """Raises UserError if classes cannot be told apart, or there is only one."""
  known = {}
  names = {name for files in splits.values() for name in files.values()}
  for name in sorted(names):
    if name.splitlines() != [name]:
      raise errors.UserError(
        f'{root} has the class {name!r}, which is more than one line; rename '
        'its folder.'
      )
    other = known.setdefault(unicodedata.normalize('NFC', name), name)
    if other != name:
      raise errors.UserError(
        f'{root} has the classes {ascii(other)} and {ascii(name)}, which look '
        'alike; give their folders one name.'
      )
  if len(known) == 1:
    raise errors.UserError(
      f'{root} has the class {errors.listed(known)} only; give a folder that '
      'has a folder for each of two classes or more.'
    )


def _warn_of_unused(root: pathlib.Path, splits: Splits) -> None:
  """Warns of files that are no images, and of folders such as test/."""
  used = {
    place
    for files in splits.values()
    for path in files
    for place in (path, *path.parents)
  }
  unused = sorted(path for path in _files_below(root) if path not in used)
  if unused:
    logging.warning(
      '%s: %d other files are left alone, such as %s',
      root,
      len(unused),
      unused[0].relative_to(root),
    )


def _hashed_split(path: pathlib.Path) -> str:
  digest = hashlib.sha256(path.as_posix().encode()).digest()
  return 'train' if int.from_bytes(digest, 'big') % 10 else 'validation'


def _class_names(files: dict[pathlib.Path, str]) -> tuple[str, ...]:
  return tuple(sorted(set(files.values())))


def _files_source(name: str, root: pathlib.Path, splits: Splits) -> Source:
  class_names = _class_names(splits.get('train', splits['validation']))
  unknown = set(splits['validation'].values()) - set(class_names)
  if unknown:
    raise errors.UserError(
      f'data.name={name}: validation has classes that train lacks '
      f'({errors.listed(unknown, 20)}); give both the same class folders, '
      'or more images to classes that have few.'
    )
  label_of = {class_name: i for i, class_name in enumerate(class_names)}
  if name != IMAGENET:  # its test/ is known
    _warn_of_unused(root, splits)

  def examples(split: str, start: int) -> tf.data.Dataset:
    files = list(splits[split].items())[start:]
    paths = [str(path) for path, _ in files]
    labels = [label_of[class_name] for _, class_name in files]
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    return dataset.map(
      lambda path, label: {
        'image': tf.numpy_function(_read, [path], tf.string),
        'label': tf.cast(label, tf.int64),
        'name': path,
      },
      num_parallel_calls=tf.data.AUTOTUNE,
    )

  counts = {split: len(files) for split, files in splits.items()}
  return Source(
    name, class_names, None, counts, examples, _fingerprint(root, splits)
  )


def _read(path: bytes) -> bytes:
  """Reads a file; returns b'', which is no picture, if that fails."""
  try:
    return pathlib.Path(path.decode()).read_bytes()
  except OSError:
    return b''


def _builder(name: str, tfds_dir: str) -> tfds.core.DatasetBuilder:
  try:
    return tfds.builder(name, data_dir=tfds_dir or None)
  except (
    tfds.core.DatasetNotFoundError,
    ValueError,
    AssertionError,
    ImportError,
  ) as error:
    raise errors.UserError(
      f'data.name={name!r} is no data set that TFDS knows '
      f'({errors.first_line(error)}); give a TFDS name, folder=PATH, or '
      'shapes.'
    ) from error


def _label_feature(
  name: str, info: tfds.core.DatasetInfo
) -> tfds.features.ClassLabel:
  features = dict(info.features.items())  # a FeaturesDict has no `get`
  label = features.get('label')
  if 'image' not in features or not isinstance(label, tfds.features.ClassLabel):
    raise errors.UserError(
      f'data.name={name!r} has no image with one label; choose a TFDS set for '
      'image classification.'
    )
  return label


def _native_size(info: tfds.core.DatasetInfo) -> int | None:
  height, width, _ = info.features['image'].shape
  return height if height and height == width else None


def _tfds_source(name: str, tfds_dir: str, manual_dir: str) -> Source:
  builder = _builder(name, tfds_dir)
  label = _label_feature(name, builder.info)
  if not builder.is_prepared():
    with locks.alone(_beside(builder, 'lock'), f'builds {builder.data_path}'):
      builder = _builder(name, tfds_dir)  # as another process has left it
      if not builder.is_prepared():
        _build(builder, name, manual_dir)
  _check_same_tars(builder, manual_dir)
  splits = _tfds_splits(name, builder)

  def examples(split: str, start: int) -> tf.data.Dataset:
    dataset = builder.as_dataset(
      split=f'{splits[split]}[{start}:]',
      decoders={'image': tfds.decode.SkipDecoding()},
      # In order, and without a copy of small sets in memory.
      read_config=tfds.ReadConfig(
        interleave_cycle_length=1, try_autocache=False, skip_prefetch=True
      ),
      shuffle_files=False,
    )
    return dataset.enumerate(start).map(
      lambda i, example: {
        'image': example['image'],
        'label': example['label'],
        'name': _example_name(name, split, i, example),
      }
    )

  infos, marker = builder.info.splits, _marker(builder)
  return Source(
    name,
    tuple(label.names),
    _native_size(builder.info),
    {split: infos[own].num_examples for split, own in splits.items()},
    examples,
    marker.read_text() if marker.exists() else '',
  )


def _tfds_splits(
  name: str, builder: tfds.core.DatasetBuilder
) -> dict[str, str]:
  """Returns TFDS's names of our splits: 'test' if it has no 'validation'.

  A set without 'train', such as imagenet_v2, can be evaluated.
  """
  own = builder.info.splits
  held_out = 'validation' if 'validation' in own else 'test'
  if held_out not in own:
    raise errors.UserError(
      f'data.name={name!r} has no split {held_out!r} (it has '
      f'{", ".join(own)}); choose a set with test images.'
    )
  names = {'train': 'train', 'validation': held_out}
  return {split: name for split, name in names.items() if name in own}


def _example_name(
  name: str, split: str, index: tf.Tensor, example: dict[str, tf.Tensor]
) -> tf.Tensor:
  own = example.get('file_name', example.get('id'))
  suffix = tf.as_string(index) if own is None else own
  return tf.strings.join([f'{name}/{split}/', suffix])


def _marker(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """Returns the path beside TFDS's copy that has its tars' fingerprint."""
  return _beside(builder, 'tars.sha256')


def _beside(builder: tfds.core.DatasetBuilder, suffix: str) -> pathlib.Path:
  copy = pathlib.Path(builder.data_path)
  return copy.with_name(f'{copy.name}.{suffix}')


def _check_same_tars(
  builder: tfds.core.DatasetBuilder, manual_dir: str
) -> None:
  """Raises UserError if TFDS has built its copy from other tars."""
  marker = _marker(builder)
  given = fingerprint(builder.name, manual_dir)
  if given and marker.exists() and marker.read_text() != given:
    raise errors.UserError(
      f'--manual_dir={manual_dir} has other tars than those that TFDS built '
      f'{builder.data_path} from; give another --tfds_dir.'
    )


def _build(
  builder: tfds.core.DatasetBuilder, name: str, manual_dir: str
) -> None:
  """Lets TFDS download the set, or build imagenet2012 from the tars."""
  if builder.name == IMAGENET:
    ilsvrc.check_present(manual_dir)
    marker = _marker(builder)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(ilsvrc.fingerprint(manual_dir))
  config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
  try:
    builder.download_and_prepare(download_config=config)
  except (
    OSError,
    AssertionError,
    tarfile.TarError,
    tf.errors.OpError,
  ) as error:
    remedy = (
      'make room for a copy of the tars, or check them with --verify_tars'
      if builder.name == IMAGENET
      else 'let TFDS prepare it where there is a network, and give its '
      'directory as data.tfds_dir'
    )
    raise errors.UserError(
      f'data.name={name!r} could not be built by TFDS '
      f'({errors.first_line(error)}); {remedy}.'
    ) from error
