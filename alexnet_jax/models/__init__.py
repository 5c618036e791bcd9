"""The networks: `alexnet` reads a table of layers, `layers` has the parts."""

from typing import Any

import ml_collections
from flax import traverse_util

from alexnet_jax.models import efficientnet, googlenet, lenet, resnet, vgg
from alexnet_jax.models.alexnet import AlexNet

__all__ = ['MODELS', 'VARIANTS', 'AlexNet']

# Fields of `config.model` that each network with one tower reads besides
# num_classes and dtype, with their defaults.
VARIANTS = {
  **lenet.VARIANTS,
  **vgg.VARIANTS,
  **googlenet.VARIANTS,
  **resnet.VARIANTS,
  **efficientnet.VARIANTS,
}
# The network of each `config.model.name`.
MODELS = {
  'alexnet': AlexNet,
  'lenet5': lenet.LeNet5,
  'lenet_caffe': lenet.LeNetCaffe,
  **dict.fromkeys(vgg.VARIANTS, vgg.VGG),
  **dict.fromkeys(googlenet.VARIANTS, googlenet.GoogLeNet),
  **dict.fromkeys(resnet.VARIANTS, resnet.ResNet),
  **dict.fromkeys(efficientnet.VARIANTS, efficientnet.EfficientNet),
}


def set_network(config: ml_collections.ConfigDict, name: str) -> None:
  """Makes another network than AlexNet that of a config.

  Args:
    config: Config to change; its data may be named already.
    name: Name of the network, one of `VARIANTS`.
  """
  config.model = ml_collections.ConfigDict(
    {
      'name': name,
      'towers': 1,
      'num_classes': config.model.num_classes,
      'dtype': 'float32',
      **VARIANTS[name],
    }
  )


def head_name(model: ml_collections.ConfigDict) -> str:
  """Returns the name of the layer that computes the logits.

  Args:
    model: `config.model`.
  """
  return model.layers[-1] if model.name == 'alexnet' else 'head'


def shape_differences(expected: Any, found: Any) -> list[str]:
  """Returns where two trees of arrays differ, as 'conv1/bias is [6], not [7]'.

  Args:
    expected: Tree of arrays or shapes, nested dicts.
    found: Another one, which the texts name first.
  """
  here, there = (
    {
      path: list(leaf.shape)
      for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()
    }
    for tree in (expected, found)
  )
  return [
    f'{path} is {there.get(path, "absent")}, not {here.get(path, "absent")}'
    for path in sorted(here.keys() | there.keys())
    if here.get(path) != there.get(path)
  ]
