"""Files of weights by name, told apart by their suffixes.

.safetensors   read and written, with metadata
.pth, .pt      a PyTorch state_dict, read and written; needs PyTorch
.caffemodel    read
"""

import contextlib
import pathlib
import pickle
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import safetensors
import safetensors.numpy

from alexnet_jax import errors
from alexnet_jax.weights import caffe

Arrays = dict[str, np.ndarray]
Metadata = dict[str, str]

PYTORCH = ('.pth', '.pt')
READABLE = ('.safetensors', *PYTORCH, '.caffemodel')
WRITABLE = ('.safetensors', *PYTORCH)


def read(path: pathlib.Path) -> tuple[Arrays, Metadata]:
  """The arrays of a file, in PyTorch's layout, and what it says of them.

  Metadata are those of `publish.export_weights`, or none.

  Raises:
    UserError: where the file cannot be read, or not without PyTorch.
    OSError: where there is no such file.
  """
  check_suffix('weights', path, READABLE)
  with open(path, 'rb'):  # which names it where it is missing
    pass
  if path.suffix == '.caffemodel':
    return caffe.read_weights(path), {}
  if path.suffix == '.safetensors':
    return _read_safetensors(path)
  return _read_pytorch(path), {}


def write(path: pathlib.Path, arrays: Arrays, metadata: Metadata) -> None:
  """Writes arrays; metadata go into .safetensors only.

  Raises:
    UserError: where the suffix is no format, or PyTorch is missing.
  """
  check_suffix('output', path, WRITABLE)
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  if path.suffix == '.safetensors':
    safetensors.numpy.save_file(arrays, path, metadata)
    return
  torch = _torch(path)
  tensors = {name: torch.tensor(x) for name, x in arrays.items()}
  torch.save(tensors, path)


def check_suffix(
  argument: str, path: pathlib.Path, suffixes: tuple[str, ...]
) -> None:
  """Raises UserError where a file's name ends in none of the suffixes."""
  if path.suffix not in suffixes:
    raise errors.UserError(
      f'{argument}={path} has none of the suffixes {", ".join(suffixes)}; give '
      'a file of such a format.'
    )


def _read_safetensors(path: pathlib.Path) -> tuple[Arrays, Metadata]:
  with _foreign(path), safetensors.safe_open(path, 'numpy') as file:
    arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    return arrays, file.metadata() or {}


def _read_pytorch(path: pathlib.Path) -> Arrays:
  torch = _torch(path)
  with _foreign(path):
    try:
      loaded = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
      raise _no_state_dict(path) from error
    if isinstance(loaded, dict):
      loaded = loaded.get('state_dict', loaded)  # of a whole training state
    if not isinstance(loaded, dict) or not all(
      isinstance(name, str) and isinstance(x, torch.Tensor)
      for name, x in loaded.items()
    ):
      raise _no_state_dict(path)
    if any(x.is_complex() for x in loaded.values()):
      raise TypeError('complex numbers')
    return {name: x.detach().float().numpy() for name, x in loaded.items()}


@contextlib.contextmanager
def _foreign(path: pathlib.Path) -> Iterator[None]:
  """Readers of others raise whatever a damaged file makes them raise."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    raise _unreadable(path, error) from error


def _no_state_dict(path: pathlib.Path) -> errors.UserError:
  return errors.UserError(
    f'{path} holds no state_dict (nothing else is loaded, for it could run '
    'code); save model.state_dict(), or give another file.'
  )


def _unreadable(path: pathlib.Path, error: Exception) -> errors.UserError:
  return errors.UserError(
    f'{path} cannot be read as {path.suffix} ({errors.first_line(error)}); '
    'give another file.'
  )


def _torch(path: pathlib.Path) -> ModuleType:
  try:
    import torch
  except ImportError as error:
    raise errors.UserError(
      f'{path} needs PyTorch, which is not installed; run `pip install torch`, '
      'or give a .safetensors file.'
    ) from error
  return torch
