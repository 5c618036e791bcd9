"""Files of named weights: .safetensors and Caffe's .caffemodel.

Our own .safetensors files have metadata, each value as JSON. They say how
pixels become inputs: (pixels - mean) / scale of a crop of crop_size pixels,
with colours in channel_order; and what the outputs are called: class_names.
"""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from alexnet_jax import errors
from alexnet_jax.weights import caffe

Arrays = dict[str, np.ndarray]
Metadata = dict[str, Any]

_METADATA = ('channel_order', 'mean', 'scale', 'crop_size', 'class_names')
# Step through red, green and blue.
_STEPS = {'RGB': 1, 'BGR': -1}
_LARGEST = 1e6  # of numbers about pixels, which are 0 to 255


def read(path: pathlib.Path) -> tuple[Arrays, Metadata]:
  """Reads a file of weights.

  Returns:
    Arrays by name, in PyTorch's layout, and the metadata that `write` has put
    into the file, or no metadata.

  Raises:
    UserError: If the file is damaged or of another format.
    OSError: If there is no such file.
  """
  path.stat()  # its error names a missing file
  if path.suffix in ('.pth', '.pt'):
    raise errors.UserError(
      f'weights={path} is a pickle, which could run code; give the file that '
      f"`safetensors.torch.save_file(torch.load('{path.name}', "
      f"weights_only=True), '{path.stem}.safetensors')` makes of it."
    )
  check_suffix('weights', path, ('.safetensors', '.caffemodel'))
  if path.suffix == '.caffemodel':
    return _check_finite(path, caffe.read_weights(path)), {}
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      arrays = {
        name: file.get_tensor(name)
        for name in sorted(file.keys())
        if not name.endswith('.num_batches_tracked')  # of batch normalisation
      }
      metadata = file.metadata() or {}
  except Exception as error:  # of many types, for a file that is damaged
    raise errors.UserError(
      f'{path} cannot be read as .safetensors ({errors.first_line(error)}); '
      'give another file.'
    ) from error
  return _check_finite(path, arrays), _parse(path, metadata)


def _check_finite(path: pathlib.Path, arrays: Arrays) -> Arrays:
  """Returns the arrays, or raises UserError if one is not of finite floats."""
  for name, array in arrays.items():
    if not jnp.issubdtype(array.dtype, jnp.floating):
      problem = f'is of {array.dtype}, not of floats'
    elif not np.isfinite(_as_float32(array)).all():
      problem = 'has numbers that are infinite or no numbers in float32'
    else:
      continue
    raise errors.UserError(f'{path}: {name} {problem}; give another file.')
  return arrays


def _as_float32(array: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore'):
    return array.astype(np.float32)


def write(
  path: pathlib.Path, arrays: Arrays, metadata: Metadata | None = None
) -> None:
  """Writes a .safetensors file, and the directories on the way.

  Args:
    path: Path of the file.
    arrays: Arrays by name.
    metadata: Values for all names of the metadata, mean and scale as RGB; None
      to write none.

  Raises:
    UserError: If the path has another suffix.
  """
  check_suffix('output', path, ('.safetensors',))
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  values = _flip(metadata) if metadata else {}
  texts = {name: json.dumps(value) for name, value in values.items()}
  safetensors.numpy.save_file(arrays, path, texts)


def check_suffix(
  argument: str, path: pathlib.Path, suffixes: tuple[str, ...]
) -> None:
  """Raises UserError if the path ends in none of the suffixes."""
  if path.suffix not in suffixes:
    raise errors.UserError(
      f'{argument}={path} has none of the suffixes {", ".join(suffixes)}; give '
      'another file.'
    )


def _flip(metadata: Metadata) -> Metadata:
  """Turns mean and scale from RGB into the channel order, or back."""
  step = _STEPS[metadata['channel_order']]
  return metadata | {k: metadata[k][::step] for k in ('mean', 'scale')}


def _parse(path: pathlib.Path, texts: dict[str, str]) -> Metadata:
  if not texts.keys() >= set(_METADATA):
    return {}  # another program's file
  try:
    metadata = _flip({name: json.loads(texts[name]) for name in _METADATA})
    is_valid = _is_valid(**metadata)
  except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
    is_valid = False
  if not is_valid:
    raise errors.UserError(
      f'{path} has damaged metadata; write the file again with '
      '`python -m alexnet_jax.tools.export`, or without metadata.'
    )
  return metadata


def _is_valid(
  channel_order: Any, mean: Any, scale: Any, crop_size: Any, class_names: Any
) -> bool:
  del channel_order  # `_flip` has looked it up
  numbers = np.asarray([mean, scale])
  return (
    numbers.shape == (2, 3)
    and numbers.dtype.kind in 'if'
    and 0 < numbers[1].min() <= np.abs(numbers).max() <= _LARGEST
    and type(crop_size) is int
    and crop_size > 0
    and isinstance(class_names, list)
    and all(isinstance(name, str) for name in class_names)
  )
