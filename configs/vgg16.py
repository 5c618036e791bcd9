"""VGG-16: Simonyan and Zisserman 2014, net D, trained from random weights.

    python main.py --config=configs/vgg16.py --workdir=runs/vgg16
    python main.py --config=configs/vgg16.py:cifar10 --workdir=runs/vgg16_cifar

Expected: no published number belongs to this recipe. It is torchvision's, whose
errors are .284 / .096 on ILSVRC-2012 (one view), but for the crops: theirs are
of random size and shape, ours are squares of 224 from images of 256 pixels. The
paper's are .270 / .088, with shallower nets' weights as the start and dense
evaluation. For CIFAR-10 it has batch normalisation and smaller dense layers.

Time: not measured; a step is 21 times the multiply-adds of AlexNet's.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import models


def get_config(
  data: str = 'imagenet2012', name: str = 'vgg16'
) -> ml_collections.ConfigDict:
  """TV references/classification, with our crops."""
  config = config_lib.base()
  models.set_network(config, name)
  config_lib.for_data(config, data)
  config_lib.train_as_torchvision(config)
  if config.data.image_size <= 64:
    config_lib.pad_crops(config)
    config.model.vgg.update({'batch_norm': True, 'dense': (512, 512)})
    config.optimizer.learning_rate = 0.05
  return config
