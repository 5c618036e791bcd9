"""The same images in every form that a contender reads.

    originals/   the source's own files, a folder of class folders
    jpeg/ raw/   prepared from originals/ by alexnet_jax.data.prepare
    files/       the prepared JPEG images, a file each

Importing this needs no TensorFlow, so that every contender's Python can.
"""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np

from alexnet_jax import errors

# The repository, from which modules run.
ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the images lie.

  Attributes:
    directory: holds all of them.
  """

  directory: pathlib.Path

  @property
  def source(self) -> str:
    """The name of originals/ as a source."""
    return f'folder={self.directory / "originals"}'

  def originals(self) -> list[str]:
    """The training images as the source has them."""
    folder = self.directory / 'originals' / 'train'
    return sorted(map(str, folder.glob('*/*')))

  def files(self) -> list[str]:
    """The prepared training images, as JPEG files."""
    return sorted(map(str, (self.directory / 'files').glob('*.jpg')))

  def array_records(self) -> list[str]:
    """The prepared JPEG set's own files."""
    pattern = '*/train*.array_record'
    return sorted(map(str, (self.directory / 'jpeg').glob(pattern)))

  def prepared(self, encoding: str):
    """Opens the set in 'jpeg' or 'raw', a `records.PreparedSet`."""
    from alexnet_jax.data import records

    return records.open_prepared(str(self.directory / encoding), self.source)


def create(directory: pathlib.Path, source, count: int, size: int) -> Layout:
  """Writes the first training images of a source.

  Args:
    directory: to write to.
    source: a `sources.Source`.
    count: how many images, or all if there are fewer.
    size: of the prepared images, in pixels.
  """
  layout = Layout(directory)
  _write_originals(layout, source, count)
  for encoding in ('jpeg', 'raw'):
    _prepare(layout, encoding, size)
  _write_files(layout)
  return layout


def _write_originals(layout: Layout, source, count: int) -> None:
  """One class is enough, and so is one image to validate with."""
  train = layout.directory / 'originals' / 'train' / 'all'
  validation = layout.directory / 'originals' / 'validation' / 'all'
  train.mkdir(parents=True)
  validation.mkdir(parents=True)
  examples = source.examples('train', 0).take(count).as_numpy_iterator()
  for i, example in enumerate(examples):
    # Decoders go by the contents, whatever the suffix says.
    (train / f'{i:06}.jpg').write_bytes(example['image'])
    if i == 0:
      (validation / f'{i:06}.jpg').write_bytes(example['image'])


def _prepare(layout: Layout, encoding: str, size: int) -> None:
  options = {
    'source': layout.source,
    'data_dir': layout.directory / encoding,
    'encoding': encoding,
    'image_size': size,
  }
  flags = [f'--{name}={value}' for name, value in options.items()]
  command = [sys.executable, '-m', 'alexnet_jax.data.prepare', *flags]
  if subprocess.run(command, cwd=ROOT).returncode:
    raise errors.UserError(f'the images could not be prepared as {encoding}.')


def _write_files(layout: Layout) -> None:
  folder = layout.directory / 'files'
  folder.mkdir()
  prepared = layout.prepared('jpeg')
  indices = np.arange(prepared.num_examples('train'))
  for i, image in enumerate(prepared.open_split('train').read(indices)):
    (folder / f'{i:06}.jpg').write_bytes(image)
