"""AlexNet-BN, with which NVIDIA showed LARS: batch norm in place of LRN.

    python main.py --config=configs/alexnet_bn.py --workdir=runs/alexnet_bn

(You, Gitman and Ginsburg 2017, arXiv 1708.03888; the network is `train_val2`,
and the numbers are those of the solver files, of NVCaffe's models/alexnet_bn.)
Otherwise Caffe's AlexNet, `bvlc_alexnet`. Batch norm has no scale and no shift
and stands before conv2 to conv5; biases are decayed and start at .01, or .1 in
fc6 and fc7; inputs are divided by 256.

Not run by us: no ImageNet at hand.
"""

import ml_collections

from configs import bvlc_alexnet

_IMAGES = 1_281_167  # of ILSVRC-2012, on which lengths in steps were given


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """NVCaffe's train_val2.prototxt and solver.prototxt."""
  config = bvlc_alexnet.get_config(data)
  model = config.model
  for name in model.layers:
    is_large = name in ('fc6', 'fc7')
    model[name].init_std = 0.005 if is_large else 0.01
    model[name].init_bias = 0.1 if is_large else 0.01
  model.conv1.after = model.conv2.after = ('act', 'max_pool', 'batch_norm')
  model.conv3.after = model.conv4.after = ('act', 'batch_norm')
  model.batch_norm.epsilon = 1e-4
  config.data.scale = 256.0
  config.batch_size = 512
  # Rounded down, for a part of a step counts as a whole one.
  config.num_epochs = 250_000 * 512 / _IMAGES - 1e-9
  config.optimizer.learning_rate = 0.08
  config.optimizer.bias_rate_multiplier = 1.0
  config.optimizer.decay_biases = True
  config.schedule.update({'name': 'poly', 'power': 2.0, 'drops': ()})
  return config
