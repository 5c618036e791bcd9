"""The ILSVRC-2012 tars: which they are, where they come from."""

import hashlib
import os
import pathlib

import tqdm

from alexnet_jax import errors

# Paper section 2: "roughly 1.2 million" and 50,000.
COUNTS = {'train': 1_281_167, 'validation': 50_000}
# With the MD5 sums that image-net.org publishes (also in torchvision's
# datasets/imagenet.py).
_TARS = {
  'ILSVRC2012_img_train.tar': '1d675b47d978889d74fa0da5fadfb00e',
  'ILSVRC2012_img_val.tar': '29b22e2961454d5413ddabcf34fc5622',
}
_BLOCK = 2**20  # bytes
_WHERE_TO_GET_THEM = (
  'register at image-net.org, download {} (138 GB) and {} (6.3 GB), and put '
  'both into that directory'.format(*_TARS)
)


def instructions(manual_dir: str) -> str:
  """What to get and where to put it."""
  return f'for --manual_dir={manual_dir}, {_WHERE_TO_GET_THEM}'


def _paths(manual_dir: str) -> list[pathlib.Path]:
  return [pathlib.Path(manual_dir).expanduser() / tar for tar in _TARS]


def _missing(manual_dir: str) -> list[str]:
  """The tars that are not there: all of them, if no place is given."""
  paths = _paths(manual_dir)
  return [p.name for p in paths if not manual_dir or not p.is_file()]


def check_present(manual_dir: str) -> None:
  """Raises UserError where tars are missing."""
  missing = _missing(manual_dir)
  if missing:
    raise errors.UserError(
      f'{" and ".join(missing)} not found in --manual_dir={manual_dir}; '
      f'{_WHERE_TO_GET_THEM}.'
    )


def fingerprint(manual_dir: str) -> str:
  """A digest of the tars' sizes and ends, or '' where they are not there."""
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

  Raises:
    UserError: where a tar is missing, or is another file.
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
