"""LeNet-5 for handwritten digits, in the form that is usual today.

    python main.py --config=configs/lenet5.py --workdir=runs/lenet5

Expected: the paper's net has a test error of .0095 on MNIST without distorted
digits (LeCun et al. 1998). This one has 61,706 parameters: each map of its
second layer reads all six maps before, pools have no parameters, the outputs
are logits. It takes the recipe of `lenet_caffe`, so that no published number
belongs to it.

Time: about a minute on 2 CPU cores.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import models
from configs import lenet_caffe


def get_config(data: str = 'mnist') -> ml_collections.ConfigDict:
  """The layers of LeNet-5, trained as Caffe's LeNet is."""
  config = lenet_caffe.get_config(data)
  models.set_network(config, 'lenet5')
  config_lib.for_data(config, data)
  config.data.crop_size = config.data.image_size
  config.model.lenet.padding = 2  # the paper puts 28 pixels in the centre of 32
  return config
