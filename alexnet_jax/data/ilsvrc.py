"""ILSVRC-2012: its files, and names of its classes that a person can read.

image-net.org has two tars. Kaggle has the same images in folders, and the
classes of the validation images in a CSV file.

imagenet_names.txt has a WordNet id and a name per line, in the order of labels:
ids as in TFDS (`imagenet2012`), names as in torchvision's weights
(`IMAGENET1K_V1`, category names).
"""

import functools
import hashlib
import os
import pathlib

import tqdm

from alexnet_jax import errors, paths

# Paper section 2: "roughly 1.2 million" and 50,000.
COUNTS = {'train': 1_281_167, 'validation': 50_000}
# MD5 sums that image-net.org publishes (also in torchvision's
# datasets/imagenet.py).
_TARS = {
  'ILSVRC2012_img_train.tar': '1d675b47d978889d74fa0da5fadfb00e',
  'ILSVRC2012_img_val.tar': '29b22e2961454d5413ddabcf34fc5622',
}
_BLOCK = 2**20  # bytes
_KAGGLE = "Kaggle's imagenet-object-localization-challenge"
_KAGGLE_IMAGES = 'ILSVRC/Data/CLS-LOC'
_KAGGLE_CSV = 'LOC_val_solution.csv'  # beside ILSVRC/


@functools.cache
def class_names() -> dict[str, str]:
  """Returns the names of the 1000 WordNet ids, in the order of labels."""
  path = pathlib.Path(__file__).with_name('imagenet_names.txt')
  pairs = (line.split(' ', 1) for line in path.read_text().splitlines())
  return dict(pairs)


def readable_names(names: list[str]) -> list[str]:
  """Returns class names with ILSVRC-2012's WordNet ids replaced by words."""
  return [class_names().get(name, name) for name in names]


def instructions(directory: str) -> str:
  """Returns what to download and where to put it, as half a sentence."""
  train, validation = _TARS
  return (
    f'register at image-net.org and put {train} (138 GB) and {validation} '
    f'(6.3 GB) into {directory}, or unpack {_KAGGLE} there'
  )


def _paths(manual_dir: str) -> list[pathlib.Path]:
  root = paths.local('data.manual_dir', manual_dir)
  return [root / tar for tar in _TARS]


def _missing(manual_dir: str) -> list[str]:
  """Returns names of tars that are not there: both if '' is given."""
  paths = _paths(manual_dir)
  return [p.name for p in paths if not manual_dir or not p.is_file()]


def check_present(manual_dir: str) -> None:
  """Raises UserError if tars are missing.

  Args:
    manual_dir: Directory of the tars.
  """
  missing = _missing(manual_dir)
  if missing:
    raise errors.UserError(
      f'{" and ".join(missing)} not found in --manual_dir={manual_dir}; '
      f'{instructions("that directory")}.'
    )


def kaggle_folder(manual_dir: str) -> pathlib.Path | None:
  """Returns Kaggle's folder of images if it is there and the tars are not.

  Args:
    manual_dir: Directory of the tars or of Kaggle's ILSVRC/.
  """
  folder = paths.local('data.manual_dir', manual_dir) / _KAGGLE_IMAGES
  there = manual_dir and _missing(manual_dir) and folder.is_dir()
  return folder if there else None


def kaggle_validation(folder: pathlib.Path) -> dict[pathlib.Path, str]:
  """Returns Kaggle's validation images, sorted, with their WordNet ids.

  Args:
    folder: Kaggle's folder of images, with train/ and val/.

  Raises:
    UserError: If files are missing, or an image has no class that train/ has.
  """
  train, val = folder / 'train', folder / 'val'
  csv, images = folder.parents[2] / _KAGGLE_CSV, sorted(val.glob('*.JPEG'))
  for path, found in (
    (train, train.is_dir()),
    (val / '*.JPEG', images),
    (csv, csv.is_file()),
  ):
    if not found:
      raise errors.UserError(f'{path} not found; unpack it from {_KAGGLE}.')
  class_of, classes = _read_csv(csv), {path.name for path in train.iterdir()}
  for image in images:
    class_name = class_of.get(image.stem) or 'no class'
    if class_name not in classes:
      raise errors.UserError(
        f'{csv} has {class_name} for {image.name}, where it needs the name of '
        f'a folder in {train}; unpack both again from {_KAGGLE}.'
      )
  return {image: class_of[image.stem] for image in images}


def _read_csv(path: pathlib.Path) -> dict[str, str]:
  """Returns the class of each image, the first word after the comma."""
  lines = path.read_text(errors='replace').splitlines()
  # For example: ILSVRC2012_val_00000001,n01751748 111 108 441 193
  pairs = (line.split(' ', 1)[0].partition(',') for line in lines)
  return {image: class_name for image, _, class_name in pairs}


def fingerprint(manual_dir: str) -> str:
  """Returns a digest of the tars' sizes and both ends, or '' without them."""
  if _missing(manual_dir):
    return ''
  digest = hashlib.sha256()
  for path in _paths(manual_dir):
    with open(path, 'rb') as file:
      digest.update(file.read(_BLOCK))
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - _BLOCK, 0))
      digest.update(file.read() + str(size).encode())
  return digest.hexdigest()


def verify(manual_dir: str) -> None:
  """Compares the tars with their published MD5 sums.

  Args:
    manual_dir: Directory of the tars.

  Raises:
    UserError: If a tar is missing or is another file.
  """
  check_present(manual_dir)
  for path in _paths(manual_dir):
    found, expected = _md5(path), _TARS[path.name]
    if found != expected:
      raise errors.UserError(
        f'{path} has the MD5 sum {found}, not {expected}: download it again, '
        'or leave out --verify_tars if these are tars of your own.'
      )


def _md5(path: pathlib.Path) -> str:
  digest = hashlib.md5(usedforsecurity=False)
  size = path.stat().st_size
  bar = tqdm.tqdm(total=size, unit='B', unit_scale=True, desc=path.name)
  with open(path, 'rb') as file, bar:
    while block := file.read(_BLOCK):
      digest.update(block)
      bar.update(len(block))
  return digest.hexdigest()
