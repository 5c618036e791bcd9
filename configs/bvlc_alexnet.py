"""AlexNet as Caffe trained it (BVLC/caffe, models/bvlc_alexnet).

    python main.py --config=configs/bvlc_alexnet.py --workdir=runs/bvlc_alexnet

Expected on ILSVRC-2012 validation with the centre patch: top-1 error 0.429,
top-5 error 0.198 (CAFFE: accuracies of 57.1 and 80.2 %). Not run by us: no
ImageNet at hand. `alexnet_jax.tools.import_weights` reads the released weights.
Others who evaluated these again found 0.4317 and 0.2005 (BVLC/caffe#6382),
because details of resizing matter.

Unlike the paper: crops of 227 pixels, no colour noise, batches of 256, biases
of .1 and sigma .005 in fc6 and fc7, inverted dropout, response norms with k = 1
and alpha / n whose windows cross the two groups, and a rate that drops every
100,000 steps.
"""

import ml_collections

from configs import alexnet

# Epochs of ILSVRC-2012 in Caffe's step size of 100,000 batches; rounded down,
# for a part of a step counts as a whole one.
_STEP_SIZE = 100_000 * 256 / 1_281_167 - 1e-9


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """CAFFE train_val.prototxt and solver.prototxt."""
  config = alexnet.get_config(data)
  model = config.model
  if model.conv1.kernel == 11:  # no stem for small pictures
    model.conv1.padding = (0, 0)
  for layer in ('conv2', 'conv4', 'conv5', 'fc6', 'fc7'):
    model[layer].init_bias = 0.1
  model.fc6.init_std = model.fc7.init_std = 0.005
  model.inverted_dropout = True
  model.lrn.update({'k': 1.0, 'alpha_over_n': True, 'across_towers': True})
  config.data.crop_size = config.data.image_size * 227 // 256
  config.data.color_noise = 'none'
  config.batch_size = 256
  config.num_epochs = 4.5 * _STEP_SIZE
  config.optimizer.bias_rate_multiplier = 2.0
  config.schedule.name = 'epochs'
  config.schedule.drops = tuple((i * _STEP_SIZE, 0.1) for i in (1, 2, 3, 4))
  return config
