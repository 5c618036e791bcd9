"""Turns weights of torchvision's VGG, ResNet, EfficientNet into ours, and back.

Names are those of torchvision's state_dicts (TV vgg.py, resnet.py,
efficientnet.py). Convolutions [out, in, k, k] are [k, k, in, out] here, dense
layers [out, in] are [in, out].
"""

from typing import Any

import ml_collections
import numpy as np
from flax import traverse_util

from alexnet_jax import errors, models
from alexnet_jax.models.vgg import stage_width
from alexnet_jax.train_step import abstract_train_state

Tree = Any
_LEAVES = {
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
  'bias': ('params', 'bias'),
}
_KINDS = {leaf: kind for kind, (_, leaf) in _LEAVES.items()}
# PyTorch's axes in our order, by their number.
_ORDER = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def num_classes(
  model: ml_collections.ConfigDict, arrays: dict[str, np.ndarray]
) -> int | None:
  """Returns the number of classes of some weights, None if they have no head.

  Args:
    model: `config.model`.
    arrays: Arrays by torchvision's names.

  Raises:
    UserError: If torchvision has no network like this one.
  """
  paths = _module_paths(model)
  head = next(theirs for theirs, ours in paths.items() if ours == 'head')
  bias = arrays.get(f'{head}.bias')
  return None if bias is None else bias.size


def from_torchvision(
  config: ml_collections.ConfigDict, arrays: dict[str, np.ndarray]
) -> dict[str, Tree]:
  """Returns canonical 'params' and 'batch_stats'.

  Args:
    config: Config of the network, with the weights' number of classes.
    arrays: Arrays by torchvision's names.

  Raises:
    UserError: If the arrays are of another network.
  """
  found = {'batch_stats': {}} | to_variables(config.model, arrays)
  expected = abstract_train_state(config).variables
  if differences := models.shape_differences(expected, found):
    raise errors.UserError(
      f'weights are of another network ({differences[0]}); give the config of '
      'theirs.'
    )
  return found


def to_variables(
  model: ml_collections.ConfigDict, arrays: dict[str, np.ndarray]
) -> dict[str, Tree]:
  """Returns some arrays under our names and in our layout, unchecked.

  Args:
    model: `config.model`.
    arrays: Arrays by torchvision's names.
  """
  paths, variables = _module_paths(model), {}
  for name, array in arrays.items():
    module, _, kind = name.rpartition('.')
    leaf = 'scale' if array.ndim == 1 else 'kernel'
    collection, leaf = _LEAVES.get(kind, ('params', leaf))
    if name == 'classifier.0.weight' and 'vgg' in model:
      array = _move_channels(array, model.vgg, 1, -1)
    path = f'{collection}/{paths.get(module, module)}/{leaf}'
    array = array.transpose(_ORDER[array.ndim])
    variables[path] = np.float32(array)
  return traverse_util.unflatten_dict(variables, sep='/')


def from_variables(
  model: ml_collections.ConfigDict, variables: dict[str, Tree]
) -> dict[str, np.ndarray]:
  """Returns arrays by torchvision's names: the inverse of `to_variables`.

  Args:
    model: `config.model`.
    variables: Canonical 'params' and 'batch_stats'.

  Raises:
    UserError: If torchvision has no network like this one.
  """
  modules = {ours: theirs for theirs, ours in _module_paths(model).items()}
  arrays = {}
  for (_, *path, leaf), array in traverse_util.flatten_dict(variables).items():
    name = f'{modules["/".join(path)]}.{_KINDS.get(leaf, "weight")}'
    array = array.transpose(np.argsort(_ORDER[array.ndim]))
    if name == 'classifier.0.weight' and 'vgg' in model:
      array = _move_channels(array, model.vgg, -1, 1)
    arrays[name] = np.ascontiguousarray(array)
  return arrays


def _move_channels(
  array: np.ndarray, vgg: ml_collections.ConfigDict, old: int, new: int
) -> np.ndarray:
  """Reorders the inputs of VGG's first dense layer, which are maps.

  Args:
    array: [outputs, inputs].
    vgg: `config.model.vgg`.
    old: Axis of the channels, 1 in [outputs, C, H, W] and -1 in ours.
    new: Axis to move them to.
  """
  channels = stage_width(vgg, len(vgg.convs))
  side = round((array.shape[1] / channels) ** 0.5)
  shape = {1: (channels, side, side), -1: (side, side, channels)}[old]
  maps = array.reshape(len(array), *shape)
  return np.moveaxis(maps, old, new).reshape(len(array), -1)


def _module_paths(model: ml_collections.ConfigDict) -> dict[str, str]:
  """Returns our path of each of torchvision's modules."""
  for family, function in (
    ('vgg', _vgg_paths),
    ('resnet', _resnet_paths),
    ('efficientnet', _efficientnet_paths),
  ):
    if family in model:
      return function(model)
  raise errors.UserError(
    f'model.name={model.name} has no counterpart in torchvision, whose names '
    'weights have in files; choose an AlexNet, VGG, ResNet or EfficientNet, or '
    'export .stablehlo, which holds any network.'
  )


def _vgg_paths(model: ml_collections.ConfigDict) -> dict[str, str]:
  vgg, paths, place = model.vgg, {}, 0
  for stage, count in enumerate(vgg.convs, 1):
    for number in range(1, count + 1):
      paths[f'features.{place}'] = f'conv{stage}_{number}'
      if vgg.batch_norm:
        paths[f'features.{place + 1}'] = f'bn{stage}_{number}'
      place += 3 if vgg.batch_norm else 2
    place += 1
  first = len(vgg.convs) + 1
  for number in range(len(vgg.dense)):
    paths[f'classifier.{3 * number}'] = f'fc{first + number}'
  return paths | {f'classifier.{3 * len(vgg.dense)}': 'head'}


def _resnet_paths(model: ml_collections.ConfigDict) -> dict[str, str]:
  paths = {'conv1': 'conv1', 'bn1': 'bn1', 'fc': 'head'}
  for stage, count in enumerate(model.resnet.blocks, 1):
    for block in range(count):
      theirs = f'layer{stage}.{block}'
      ours = f'stage{stage}/block{block + 1}'
      for part in ('conv1', 'bn1', 'conv2', 'bn2', 'conv3', 'bn3'):
        paths[f'{theirs}.{part}'] = f'{ours}/{part}'
      paths[f'{theirs}.downsample.0'] = f'{ours}/shortcut_conv'
      paths[f'{theirs}.downsample.1'] = f'{ours}/shortcut_bn'
  return paths


def _efficientnet_paths(model: ml_collections.ConfigDict) -> dict[str, str]:
  stages, paths = model.efficientnet.stages, {'classifier.1': 'head'}
  # A convolution and its batch normalisation have one number there.
  pairs = {'features.0': 'stem', f'features.{len(stages) + 1}': 'top'}
  for stage, (expansion, *_, count) in enumerate(stages, 1):
    first = 0 if expansion > 1 else -1
    for block in range(count):
      theirs = f'features.{stage}.{block}.block'
      ours = f'stage{stage}/block{block + 1}'
      for place, part in ((0, 'expand'), (1, 'depthwise'), (3, 'project')):
        pairs[f'{theirs}.{first + place}'] = f'{ours}/{part}'
      paths[f'{theirs}.{first + 2}.fc1'] = f'{ours}/squeeze'
      paths[f'{theirs}.{first + 2}.fc2'] = f'{ours}/excite'
  for theirs, ours in pairs.items():
    paths |= {f'{theirs}.0': f'{ours}_conv', f'{theirs}.1': f'{ours}_bn'}
  return paths
