"""ResNet-50: He, Zhang, Ren, Sun 2015, with the stride in the 3x3 layers.

    python main.py --config=configs/resnet50.py --workdir=runs/resnet50

Expected: no published number belongs to this recipe. It is torchvision's, whose
errors are .239 / .071 on ILSVRC-2012 (one view), but for the crops: theirs are
of random size and shape, ours are squares of 224 from images of 256 pixels.
With model.resnet.stride_in_1x1=True it is the paper's net (.247 / .078).
Torchvision takes the moments of batch normalisation over the 32 images of each
GPU: model.batch_norm.group=32 does so.

Time: not measured; a step is 5.6 times the multiply-adds of AlexNet's.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import models


def get_config(
  data: str = 'imagenet2012', name: str = 'resnet50'
) -> ml_collections.ConfigDict:
  """TV references/classification, with our crops."""
  config = config_lib.base()
  models.set_network(config, name)
  config_lib.for_data(config, data)
  config_lib.train_as_torchvision(config)
  config.optimizer.learning_rate = 0.1
  if config.data.image_size <= 64:
    config_lib.pad_crops(config)
    config.model.resnet.stem = 'cifar'
  return config
