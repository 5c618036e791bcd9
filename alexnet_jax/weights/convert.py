"""Our parameters as PyTorch lays them out, and back.

    ours                                    theirs
    conv   kernel [T, k, k, in, out]        weight [T * out, in, k, k]
    dense  kernel [T, H * W * C, out]       weight [T * out, C * H * W]
    head   kernel [H * W * C, classes]      weight [classes, C * H * W]
    biases [T, out], [classes]              bias [T * out], [classes]

Towers are their groups: a convolution of its own tower's maps, after the first
layer, is one with groups=T. Caffe's blobs have the same layout.

With the paper's dropout, units count `keep` at evaluation; with PyTorch's and
Caffe's (`model.inverted_dropout`) they count 1. So in a network with the
paper's, the weights that read such units are multiplied by `keep` on the way
out and divided on the way in, which is exact for powers of 2.
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
from alexnet_jax.train_state import abstract_train_state

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
  """What turns a layer's parameters into PyTorch's.

  Attributes:
    name: in the config.
    kind: 'conv', 'dense' or 'head'.
    towers: T; 1 for the head.
    channels: C of the maps or units that one tower of it reads.
    keep: what its input is multiplied by at evaluation.
  """

  name: str
  kind: str
  towers: int
  channels: int
  keep: float

  def to_torch(self, params: Tree) -> Arrays:
    kernel, bias = params['kernel'], params['bias'].reshape(-1)
    if self.kind != 'conv':  # as a convolution over the whole maps
      *towers, inputs, out = kernel.shape
      side = math.isqrt(inputs // self.channels)
      kernel = kernel.reshape(*towers, side, side, self.channels, out)
    kernel = kernel.reshape(self.towers, *kernel.shape[-4:])
    weight = kernel.transpose(0, 4, 3, 1, 2)  # [T, out, in, k, k]
    weight = weight.reshape(-1, *weight.shape[2:])
    if self.kind != 'conv':
      weight = weight.reshape(weight.shape[0], -1)
    weight = weight * self.keep
    return {f'{self.name}.weight': weight, f'{self.name}.bias': bias}

  def from_torch(self, arrays: Arrays, like: Tree) -> Tree:
    weight = arrays[f'{self.name}.weight'] / np.float32(self.keep)
    side = math.isqrt(math.prod(weight.shape[1:]) // self.channels)
    shape = (self.towers, -1, self.channels, side, side)
    kernel = weight.reshape(shape).transpose(0, 3, 4, 2, 1)
    kernel = np.ascontiguousarray(kernel).reshape(like['kernel'].shape)
    bias = arrays[f'{self.name}.bias'].reshape(like['bias'].shape)
    return {'kernel': kernel, 'bias': bias}


def _layers(config: ml_collections.ConfigDict) -> Iterator[_Layer]:
  """The layers in order; the first reads three colours.

  Raises:
    UserError: where one has no counterpart in PyTorch.
  """
  towers, channels, after = config.model.towers, 3, ()
  for i, (name, row) in enumerate(alexnet.layer_table(config.model).items()):
    _check(name, row, towers)
    scaled = 'dropout' in after and not config.model.inverted_dropout
    if scaled:
      _check_dropout(name, after)
    keep = config.model.keep if scaled else 1.0
    own = 1 if row.kind == 'head' else towers
    read = channels * (towers if i > 0 and row.gather else 1)
    yield _Layer(name, row.kind, own, read, keep)
    channels, after = row.get('features'), row.after


def _check(name: str, row: ml_collections.ConfigDict, towers: int) -> None:
  if row.kind == 'local':
    raise errors.UserError(
      f'model.{name}.kind=local has no counterpart in PyTorch or Caffe: '
      'export .stablehlo, which has any network.'
    )
  if row.kind != 'conv' and towers > 1 and not row.gather:
    raise errors.UserError(
      f'model.{name}.gather=False: fully-connected layers in {towers} groups '
      'have no counterpart in PyTorch or Caffe: export .stablehlo, which has '
      'any network.'
    )


def _check_dropout(name: str, after: tuple[str, ...]) -> None:
  """Checks that only pools lie between dropout and the next weights.

  Pools let a factor through.
  """
  later = after[after.index('dropout') + 1 :]
  if not all(operation.endswith('_pool') for operation in later):
    raise errors.UserError(
      f'dropout is followed by {", ".join(later)} before {name}, so that '
      "PyTorch's is no multiple of it: export .stablehlo, which has any "
      'network.'
    )


def to_torch(
  config: ml_collections.ConfigDict, params: Tree, channel_order: str = 'RGB'
) -> Arrays:
  """The state_dict of the network in PyTorch.

  Args:
    config: of the run.
    params: canonical, all towers.
    channel_order: 'RGB' or 'BGR', what its first layer is to read.

  Returns:
    'conv1.weight', 'conv1.bias', ... by the names of `model.layers`.

  Raises:
    UserError: where a layer has no counterpart in PyTorch.
  """
  arrays = {}
  for layer in _layers(config):
    arrays |= layer.to_torch(params[layer.name])
  return arrays if channel_order == 'RGB' else _flip_colours(config, arrays)


def _flip_colours(config: ml_collections.ConfigDict, arrays: Arrays) -> Arrays:
  """Turns what the first layer reads from RGB to BGR, or back."""
  name = f'{next(iter(alexnet.layer_table(config.model)))}.weight'
  weight = arrays[name]
  colours = weight.reshape(weight.shape[0], 3, -1)
  return arrays | {name: colours[:, ::-1].reshape(weight.shape)}


def from_torch(
  config: ml_collections.ConfigDict, arrays: Arrays, channel_order: str = 'RGB'
) -> Tree:
  """The inverse of `to_torch`.

  Args:
    config: the network; `num_classes` as in the arrays.
    arrays: by the names of `model.layers`.
    channel_order: 'RGB' or 'BGR', what their first layer reads.

  Raises:
    UserError: naming arrays that are missing, extra or of another shape, or a
      layer that has no counterpart in PyTorch.
  """
  like = abstract_train_state(config).params
  expected = jax.eval_shape(functools.partial(to_torch, config), like)
  _compare(arrays, expected)
  arrays = {name: arrays[name].astype(np.float32) for name in expected}
  if channel_order == 'BGR':
    arrays = _flip_colours(config, arrays)
  return {
    layer.name: layer.from_torch(arrays, like[layer.name])
    for layer in _layers(config)
  }


def _compare(arrays: Arrays, expected: Tree) -> None:
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
      f'weights are of another network ({shown}{more}); give the architecture '
      'that they belong to.'
    )


def count_classes(
  config: ml_collections.ConfigDict, arrays: Arrays
) -> int | None:
  """Outputs of the head in the arrays; None where they have no such head."""
  head = arrays.get(f'{config.model.layers[-1]}.bias')
  return None if head is None else head.size


def to_torchvision_names(arrays: Arrays) -> Arrays:
  """'conv1.weight' -> 'features.0.weight', and so on.

  Raises:
    UserError: where the layers are not those of torchvision's AlexNet.
  """
  layers = {name.rpartition('.')[0] for name in arrays}
  if layers != set(_TORCHVISION):
    raise errors.UserError(
      'names=torchvision needs the eight layers conv1 to conv5 and fc6 to fc8, '
      f'and the network has {", ".join(sorted(layers))}; give names=plain.'
    )
  return _rename(arrays, _TORCHVISION)


def from_torchvision_names(arrays: Arrays) -> Arrays:
  """'features.0.weight' -> 'conv1.weight', and so on; others stay.

  `DataParallel` puts in a 'module.', which goes.
  """
  arrays = {name.replace('module.', ''): x for name, x in arrays.items()}
  return _rename(arrays, {new: old for old, new in _TORCHVISION.items()})


def _rename(arrays: Arrays, names: dict[str, str]) -> Arrays:
  def new(name: str) -> str:
    layer, _, leaf = name.rpartition('.')
    return f'{names.get(layer, layer)}.{leaf}'

  return {new(name): x for name, x in arrays.items()}
