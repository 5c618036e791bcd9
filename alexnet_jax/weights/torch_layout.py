"""Turns our parameters into those of the same network in PyTorch, and back.

    ours                                    PyTorch's
    conv   kernel [T, k, k, in, out]        weight [T * out, in, k, k]
    dense  kernel [T, H * W * C, out]       weight [T * out, C * H * W]
    head   kernel [H * W * C, classes]      weight [classes, C * H * W]
    biases [T, out], [classes]              bias [T * out], [classes]

Our towers are PyTorch's groups: a layer that reads only its own tower's maps is
a convolution with groups=T. Caffe's arrays have PyTorch's layout.

PyTorch's and Caffe's dropout is inverted: at evaluation, units are not scaled.
The paper's multiplies them by `keep`. So for a network with the paper's, the
weights that read such units are multiplied by `keep` on the way to PyTorch and
divided by it on the way back, which is exact for powers of 2.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from alexnet_jax import errors
from alexnet_jax.models import alexnet
from alexnet_jax.train_step import abstract_train_state

Tree = Any
Arrays = dict[str, np.ndarray]

_TORCHVISION = {
  'conv1': 'features.0',
  'conv2': 'features.3',
  'conv3': 'features.6',
  'conv4': 'features.8',
  'conv5': 'features.10',
  'fc6': 'classifier.1',
  'fc7': 'classifier.4',
  'fc8': 'classifier.6',
}


@dataclasses.dataclass(frozen=True)
class _Layer:
  """A layer with what its conversion depends on.

  Attributes:
    name: Name in the config.
    is_conv: Whether it is a convolution.
    towers: Number of its towers, T; 1 for the head.
    channels: Channels C that one of its towers reads.
    keep: Factor of its input at evaluation.
  """

  name: str
  is_conv: bool
  towers: int
  channels: int
  keep: float

  def to_torch(self, params: Tree) -> Arrays:
    kernel, bias = params['kernel'], params['bias'].reshape(-1)
    side = math.isqrt(kernel.size // (bias.size * self.channels))
    kernel = kernel.reshape(self.towers, side, side, self.channels, -1)
    weight = kernel.transpose(0, 4, 3, 1, 2)  # [T, out, C, H, W]
    dims = (self.channels, side, side) if self.is_conv else (-1,)
    weight = weight.reshape(bias.size, *dims) * self.keep
    return {f'{self.name}.weight': weight, f'{self.name}.bias': bias}

  def from_torch(self, arrays: Arrays, like: Tree) -> Tree:
    weight, bias = arrays[f'{self.name}.weight'], arrays[f'{self.name}.bias']
    side = math.isqrt(weight.size // (bias.size * self.channels))
    weight = weight.reshape(self.towers, -1, self.channels, side, side)
    kernel = weight.transpose(0, 3, 4, 2, 1) / np.float32(self.keep)
    return {
      'kernel': kernel.reshape(like['kernel'].shape),
      'bias': bias.reshape(like['bias'].shape),
    }


def to_torch(
  config: ml_collections.ConfigDict, params: Tree, channel_order: str = 'RGB'
) -> Arrays:
  """Returns the state_dict of the same network in PyTorch.

  Args:
    config: Config of the run.
    params: Network parameters, canonical (all towers).
    channel_order: 'RGB' or 'BGR', the order that its first layer is to read.

  Returns:
    'conv1.weight', 'conv1.bias', ... by the names of `model.layers`.

  Raises:
    UserError: If a layer has no counterpart in PyTorch.
  """
  arrays = {}
  for layer in _layers(config):
    arrays |= layer.to_torch(params[layer.name])
  return arrays if channel_order == 'RGB' else _flip_colours(config, arrays)


def from_torch(
  config: ml_collections.ConfigDict, arrays: Arrays, channel_order: str = 'RGB'
) -> Tree:
  """Returns our parameters of a network in PyTorch: the inverse of `to_torch`.

  Args:
    config: Config of the network, with the number of classes of the arrays.
    arrays: Arrays by the names of `model.layers`.
    channel_order: 'RGB' or 'BGR', the order that their first layer reads.

  Raises:
    UserError: If arrays are missing, extra or of another shape, or a layer has
      no counterpart in PyTorch.
  """
  like = abstract_train_state(config).params
  expected = jax.eval_shape(functools.partial(to_torch, config), like)
  _check_shapes(arrays, expected)
  arrays = {name: arrays[name].astype(np.float32) for name in expected}
  if channel_order == 'BGR':
    arrays = _flip_colours(config, arrays)
  return {
    layer.name: layer.from_torch(arrays, like[layer.name])
    for layer in _layers(config)
  }


def to_torchvision_names(arrays: Arrays) -> Arrays:
  """Renames 'conv1.weight' to 'features.0.weight', and so on.

  Raises:
    UserError: If the layers are not those of torchvision's AlexNet.
  """
  layers = {name.rpartition('.')[0] for name in arrays}
  if layers != set(_TORCHVISION):
    raise errors.UserError(
      'names=torchvision needs the eight layers conv1 to conv5 and fc6 to fc8, '
      f'and the network has {", ".join(sorted(layers))}; give names=plain.'
    )
  return _rename(arrays, _TORCHVISION)


def from_torchvision_names(arrays: Arrays) -> Arrays:
  """Renames 'features.0.weight' to 'conv1.weight', and so on.

  Other names stay. The 'module.' that PyTorch's `DataParallel` adds is removed.
  """
  arrays = {name.replace('module.', ''): x for name, x in arrays.items()}
  return _rename(arrays, {new: old for old, new in _TORCHVISION.items()})


def _rename(arrays: Arrays, names: dict[str, str]) -> Arrays:
  parts = {name: name.rpartition('.') for name in arrays}
  return {
    f'{names.get(layer, layer)}.{leaf}': arrays[name]
    for name, (layer, _, leaf) in parts.items()
  }


def _layers(config: ml_collections.ConfigDict) -> Iterator[_Layer]:
  model, channels, before, keep = config.model, 3, (), 1.0
  for i, (name, row) in enumerate(alexnet.layer_table(model).items()):
    is_scaled = 'dropout' in before and not model.inverted_dropout
    _check_counterpart(model.towers, name, row, before if is_scaled else ())
    yield _Layer(
      name,
      is_conv=row.kind == 'conv',
      towers=1 if row.kind == 'head' else model.towers,
      channels=channels * (model.towers if i > 0 and row.gather else 1),
      keep=keep if is_scaled else 1.0,
    )
    channels, before, keep = row.get('features'), row.after, row.keep


def _check_counterpart(
  towers: int,
  name: str,
  row: ml_collections.ConfigDict,
  before: tuple[str, ...],
) -> None:
  """Raises UserError if a layer has no counterpart in PyTorch.

  Dropout's factor moves into the next weights through pools, and not through
  what is nonlinear.
  """
  after_dropout = before[before.index('dropout') + 1 :] if before else ()
  if row.kind == 'local':
    reason = f'model.{name}.kind=local'
  elif 'batch_norm' in row.after:
    reason = f'batch_norm in model.{name}.after'
  elif row.kind != 'conv' and towers > 1 and not row.gather:
    reason = f'model.{name}.gather=False'
  elif not all(operation.endswith('_pool') for operation in after_dropout):
    reason = f'dropout followed by {", ".join(after_dropout)} before {name}'
  else:
    return
  raise errors.UserError(
    f'{reason} has no counterpart in PyTorch or Caffe here; export .stablehlo, '
    'which holds any network.'
  )


def _flip_colours(config: ml_collections.ConfigDict, arrays: Arrays) -> Arrays:
  """Turns the order that the first layer reads from RGB to BGR, or back."""
  name = f'{next(iter(alexnet.layer_table(config.model)))}.weight'
  weight = arrays[name]
  colours = weight.reshape(weight.shape[0], 3, -1)
  return arrays | {name: colours[:, ::-1].reshape(weight.shape)}


def _check_shapes(arrays: Arrays, expected: Tree) -> None:
  differences = [f'{name} is missing' for name in expected.keys() - arrays]
  differences += [f'{name} is extra' for name in arrays.keys() - expected]
  differences += [
    f'{name} is {list(arrays[name].shape)}, not {list(x.shape)}'
    for name, x in expected.items()
    if name in arrays and arrays[name].shape != x.shape
  ]
  if differences:
    shown = '; '.join(sorted(differences)[:5])
    more = f' and {len(differences) - 5} more' if len(differences) > 5 else ''
    raise errors.UserError(
      f'weights are of another network ({shown}{more}); give the config that '
      'they belong to.'
    )
