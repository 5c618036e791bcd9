"""Where pictures come from: TFDS, folders of class folders, drawn shapes.

A source is named as in `--config.data.name`:

    imagenet2012, cifar10, imagenette/320px-v2   any TFDS classification set
    folder=/my/images                            a folder of class folders
    shapes                                       the embedded procedural set

`folder=` reads `train/` with `validation/` or `val/`; without these, class
folders directly, where every image whose path hashes to 0 modulo 10 validates.
`imagenet2012` is built by TFDS from the tars of image-net.org; without them,
the folders that Kaggle has are read.
"""

import dataclasses
import hashlib
import pathlib
import tarfile
from collections.abc import Callable

import tensorflow as tf
import tensorflow_datasets as tfds

from alexnet_jax import errors
from alexnet_jax.data import ilsvrc, shapes

IMAGENET = 'imagenet2012'
_IMAGE_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png')
_FOLDER = 'folder='
# Longer than this is prepared by its own command, with the user's consent.
_SMALL = 100_000
# Split -> its images, in order -> their classes.
Splits = dict[str, dict[pathlib.Path, str]]


@dataclasses.dataclass(frozen=True)
class Source:
  """Pictures with labels.

  Attributes:
    name: as in `config.data.name`.
    class_names: by label.
    native_size: side of the square pictures where all have the same, else None.
    num_examples: split -> count, for 'train' and 'validation'.
    examples: (split, start) -> dataset of {'image': encoded bytes, 'label',
      'name'}, in a fixed order, from number `start` on.
    fingerprint: of the files it is from, see `fingerprint`.
  """

  name: str
  class_names: tuple[str, ...]
  native_size: int | None
  num_examples: dict[str, int]
  examples: Callable[[str, int], tf.data.Dataset]
  fingerprint: str = ''

  @property
  def is_small(self) -> bool:
    """Whether training may prepare it without being asked."""
    return sum(self.num_examples.values()) <= _SMALL


def directory_name(name: str) -> str:
  """The prepared set's directory under `data.dir`."""
  if not name.startswith(_FOLDER):
    return name.replace('/', '-')
  path = _folder(name)
  digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
  return f'folder-{path.name}-{digest}'


def describe(name: str) -> tuple[int, int | None]:
  """Number of classes and native size, without reading any picture.

  Raises:
    UserError: where there is no such set.
  """
  if name == 'shapes':
    return len(shapes.CLASS_NAMES), shapes.SIZE
  if name.startswith(_FOLDER):
    return len(_class_names(_folder_splits(name)['train'])), None
  info = _builder(name, '').info
  return _label_feature(name, info).num_classes, _native_size(info)


def open_source(name: str, tfds_dir: str = '', manual_dir: str = '') -> Source:
  """Opens a source; TFDS downloads or builds its own copy where needed.

  Args:
    name: as in `config.data.name`.
    tfds_dir: where TFDS keeps its sets; '' for TFDS's own default.
    manual_dir: the directory of the ILSVRC tars or of Kaggle's ILSVRC/.

  Raises:
    UserError: where the source does not exist or files of it are missing.
  """
  if name == 'shapes':
    return _shapes_source()
  if name.startswith(_FOLDER):
    return _files_source(name, _folder(name), _folder_splits(name))
  if name == IMAGENET and (folder := ilsvrc.kaggle_folder(manual_dir)):
    return _files_source(name, folder, _kaggle_splits(folder))
  return _tfds_source(name, tfds_dir, manual_dir)


def _shapes_source() -> Source:
  def examples(split: str, start: int) -> tf.data.Dataset:
    def draw(index: tf.Tensor) -> dict[str, tf.Tensor]:
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

    indices = tf.data.Dataset.range(start, shapes.NUM_EXAMPLES[split])
    return indices.map(draw, num_parallel_calls=tf.data.AUTOTUNE)

  return Source(
    'shapes', shapes.CLASS_NAMES, shapes.SIZE, shapes.NUM_EXAMPLES, examples
  )


def _folder(name: str) -> pathlib.Path:
  return pathlib.Path(name.removeprefix(_FOLDER)).expanduser().resolve()


def _folder_splits(name: str) -> Splits:
  """Returns the images of a folder, sorted in each split."""
  root = _folder(name)
  if not root.is_dir():
    raise errors.UserError(
      f'data.name={name}: {root} is no folder; give one with a folder of '
      'images for each class.'
    )
  held_out = next((d for d in ('validation', 'val') if (root / d).is_dir()), '')
  if (root / 'train').is_dir() and held_out:
    splits = {
      'train': _images(root / 'train'),
      'validation': _images(root / held_out),
    }
  else:
    splits = {'train': {}, 'validation': {}}
    for path, class_name in _images(root).items():
      splits[_hashed_split(path.relative_to(root))][path] = class_name
  for split, files in splits.items():
    if not files:
      raise errors.UserError(
        f'data.name={name}: no images for {split} in folders of {root}; put '
        'them in one folder for each class, or in train/ and validation/.'
      )
  return splits


def _kaggle_splits(folder: pathlib.Path) -> Splits:
  """Returns the images of Kaggle's ILSVRC-2012, sorted in each split."""
  validation = ilsvrc.kaggle_validation(folder)
  return {'train': _images(folder / 'train'), 'validation': validation}


def is_image(path: pathlib.Path) -> bool:
  """Whether a file's name ends like a picture's."""
  return path.suffix.lower() in _IMAGE_SUFFIXES


def _images(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """Returns the images of all class folders, sorted, with their classes."""
  images = {}
  for folder in sorted(filter(pathlib.Path.is_dir, root.glob('[!.]*'))):
    found = sorted(filter(is_image, folder.iterdir()))
    if not found:
      raise errors.UserError(
        f'{folder} would be a class but has no pictures '
        f'({", ".join(_IMAGE_SUFFIXES)}); give class folders that have some, '
        'or such folders in train/ and validation/.'
      )
    images |= dict.fromkeys(found, folder.name)
  return images


def _hashed_split(path: pathlib.Path) -> str:
  digest = hashlib.sha256(path.as_posix().encode()).digest()
  return 'train' if int.from_bytes(digest, 'big') % 10 else 'validation'


def _class_names(files: dict[pathlib.Path, str]) -> tuple[str, ...]:
  return tuple(sorted(set(files.values())))


def _files_source(name: str, root: pathlib.Path, splits: Splits) -> Source:
  class_names = _class_names(splits['train'])
  strangers = set(_class_names(splits['validation'])) - set(class_names)
  if strangers:
    raise errors.UserError(
      f'data.name={name}: validation has classes that train lacks '
      f'({", ".join(sorted(strangers))}); give both the same class folders, '
      'or more images to classes that have few.'
    )
  label_of = {label: i for i, label in enumerate(class_names)}

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
  """A file, or nothing, which is no picture, where there is none."""
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
  # A FeaturesDict has no `get`.
  features = dict(info.features.items())
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
  if builder.is_prepared():
    _check_same_tars(builder, manual_dir)
  else:
    _build(builder, name, manual_dir)
  held_out = 'validation' if 'validation' in builder.info.splits else 'test'
  tfds_split = {'train': 'train', 'validation': held_out}
  for split in tfds_split.values():
    if split not in builder.info.splits:
      raise errors.UserError(
        f'data.name={name!r} has no split {split!r} (it has '
        f'{", ".join(builder.info.splits)}); choose a set with both training '
        'and test images.'
      )

  def examples(split: str, start: int) -> tf.data.Dataset:
    dataset = builder.as_dataset(
      split=f'{tfds_split[split]}[{start}:]',
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

  counts = {
    s: builder.info.splits[t].num_examples for s, t in tfds_split.items()
  }
  marker = _marker(builder)
  return Source(
    name,
    tuple(label.names),
    _native_size(builder.info),
    counts,
    examples,
    marker.read_text() if marker.exists() else '',
  )


def _example_name(
  name: str, split: str, index: tf.Tensor, example
) -> tf.Tensor:
  own = example.get('file_name', example.get('id'))
  suffix = tf.as_string(index) if own is None else own
  return tf.strings.join([f'{name}/{split}/', suffix])


def fingerprint(name: str, manual_dir: str = '') -> str:
  """A digest that tells a source's files from others, without reading them.

  Of ILSVRC's tars it covers sizes and both ends, of a folder the paths, sizes
  and classes of its images.

  Returns:
    '' where there is nothing to compare: drawn sets, those that TFDS downloads
    (and checks) itself, and files that are no longer there.
  """
  if name == IMAGENET and (folder := ilsvrc.kaggle_folder(manual_dir)):
    return _fingerprint(folder, _kaggle_splits(folder))
  if name == IMAGENET:
    return ilsvrc.fingerprint(manual_dir)
  if name.startswith(_FOLDER) and _folder(name).is_dir():
    return _fingerprint(_folder(name), _folder_splits(name))
  return ''


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


def _marker(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
  """Beside the copy that TFDS builds: the fingerprint of its tars."""
  copy = pathlib.Path(builder.data_path)
  return copy.with_name(f'{copy.name}.tars.sha256')


def _check_same_tars(
  builder: tfds.core.DatasetBuilder, manual_dir: str
) -> None:
  """Raises UserError where TFDS has built its copy from other tars."""
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
