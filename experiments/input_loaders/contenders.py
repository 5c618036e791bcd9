"""Who takes part, and what each is asked to do.

The loaders themselves are in `with_tf`, `with_torch`, `with_grain` and
`with_ffcv`, which import their library: a process has only its own, and one
that is missing is found out there.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from experiments.input_loaders import layout

# Of loaders that go through a list: as many as ImageNet's, by repetition.
EPOCH = 1_281_167
# Batches that a loader, or each of its workers, holds ready.
AHEAD = 4
Batches = Iterator[Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """What a contender is asked to do.

  Attributes:
    directory: of the images, see `layout`.
    workers: threads or processes that load.
    batch_size: B.
    seed: keys whatever can be keyed.
    data: `config.data` as a dict: sizes, and our own loader's settings.
  """

  directory: str
  workers: int
  batch_size: int
  seed: int
  data: dict

  @property
  def images(self) -> layout.Layout:
    """Where to read."""
    return layout.Layout(pathlib.Path(self.directory))

  @property
  def crop_size(self) -> int:
    """c, in pixels."""
    return self.data['crop_size']


@dataclasses.dataclass(frozen=True)
class Contender:
  """A loader, or a part of its work.

  Attributes:
    function: 'module:function', which opens `Batches` for a `Job`.
    python: whose interpreter runs it: 'jax', 'torch', 'grain' or 'ffcv'.
    packages: whose versions are reported.
    reads: what it reads, for the report.
    ahead: batches that may lie ready for each worker, at the most (measured).
    is_ceiling: whether it leaves out a part of the work.
  """

  function: str
  python: str
  packages: tuple[str, ...]
  reads: str
  ahead: int = AHEAD + 1
  is_ceiling: bool = False

  def open(self, job: Job) -> Batches:
    """Starts it.

    Raises:
      ImportError: where a library is missing.
    """
    return load(self.function)(job)


def load(function: str) -> Callable:
  """Imports 'module:function' of this package."""
  module, name = function.split(':')
  return getattr(importlib.import_module(f'{__package__}.{module}'), name)


_TF = ('tensorflow', 'tensorflow-cpu', 'array_record', 'numpy')
_TORCH = ('torch', 'torchvision', 'pillow')
_GRAIN = ('grain', 'array_record', 'numpy')
# It has two queues.
_GRAIN_AHEAD = 2 * AHEAD + 3
_FFCV = ('ffcv', 'numba', 'torch', 'opencv-python')

CONTENDERS = {
  'alexnet_jax jpeg': Contender(
    'with_tf:alexnet_jax_jpeg', 'jax', _TF, 'prepared set, JPEG'
  ),
  'alexnet_jax raw': Contender(
    'with_tf:alexnet_jax_raw', 'jax', _TF, 'prepared set, raw'
  ),
  'torch, torchvision.io': Contender(
    'with_torch:torchvision_io', 'torch', _TORCH, 'prepared JPEG files'
  ),
  'torch, PIL': Contender(
    'with_torch:pil', 'torch', _TORCH, 'prepared JPEG files'
  ),
  'grain, OpenCV': Contender(
    'with_grain:opencv',
    'grain',
    (*_GRAIN, 'opencv-python-headless', 'opencv-python'),
    'prepared set, JPEG',
    _GRAIN_AHEAD,
  ),
  'grain, PIL': Contender(
    'with_grain:pil',
    'grain',
    (*_GRAIN, 'pillow'),
    'prepared set, JPEG',
    _GRAIN_AHEAD,
  ),
  'FFCV jpg': Contender('with_ffcv:jpg', 'ffcv', _FFCV, '.beton, same JPEG'),
  'FFCV raw': Contender('with_ffcv:raw', 'ffcv', _FFCV, '.beton, raw'),
  'tf.data, originals': Contender(
    'with_tf:originals', 'jax', _TF, 'original files, resized each time'
  ),
  'ceiling: decode': Contender(
    'with_tf:decode_only', 'jax', _TF, 'JPEG in memory', is_ceiling=True
  ),
  'ceiling: copy': Contender(
    'with_tf:copy_only', 'jax', _TF, 'raw pixels in memory', is_ceiling=True
  ),
}

# What each decoder is called in the report -> whose Python, and a function
# from a file's path to [H, W, 3] of uint8.
DECODERS = {
  'alexnet_jax': ('jax', 'with_tf:decode_as_prepared'),
  'TensorFlow, its default': ('jax', 'with_tf:decode_by_default'),
  'torchvision.io': ('torch', 'with_torch:decode_torchvision_io'),
  'PIL': ('torch', 'with_torch:decode_pil'),
  'OpenCV': ('grain', 'with_grain:decode_opencv'),
  'FFCV': ('ffcv', 'with_ffcv:decode'),
}
