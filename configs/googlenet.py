"""GoogLeNet, as Caffe trained it: Szegedy et al. 2014.

    python main.py --config=configs/googlenet.py --workdir=runs/googlenet
    python main.py --config=configs/googlenet.py:cifar10 --workdir=runs/g_cifar

Expected: errors of .313 / .111 on ILSVRC-2012, one view (CAFFE
models/bvlc_googlenet, quick_solver: 60 epochs). The recipe is that one, but for
the mean: theirs is a colour, ours an image. For CIFAR-10 it has the form for
small images with batch normalisation, to which no published number belongs.

Time: not measured; a step is twice the multiply-adds of AlexNet's.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import models


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """The recipe is CAFFE models/bvlc_googlenet/quick_solver.prototxt."""
  config = config_lib.base()
  models.set_network(config, 'googlenet')
  config_lib.for_data(config, data)
  config.batch_size = 32
  config.num_epochs = 60.0
  config.optimizer.weight_decay = 2e-4
  config.optimizer.bias_rate_multiplier = 2.0
  config.schedule.name = 'poly'
  config.schedule.power = 0.5
  if config.data.image_size <= 64:
    config_lib.pad_crops(config)
    config_lib.scale_to_unit_variance(config)
    config.model.googlenet.small_images = True
  return config
