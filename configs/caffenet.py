"""CaffeNet (BVLC/caffe, models/bvlc_reference_caffenet): pools before LRN.

    python main.py --config=configs/caffenet.py --workdir=runs/caffenet

Expected on ILSVRC-2012 validation with the centre patch: top-1 error 0.426,
top-5 error 0.196 (CAFFE: accuracies of 57.4 and 80.4 %). Not run by us: no
ImageNet at hand. The released weights can be imported, see
`alexnet_jax.tools.import_weights`.

Otherwise `bvlc_alexnet` with biases of 1.
"""

import ml_collections

from configs import bvlc_alexnet


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """CAFFE train_val.prototxt and solver.prototxt."""
  config = bvlc_alexnet.get_config(data)
  model = config.model
  model.conv1.after = model.conv2.after = ('act', 'max_pool', 'lrn')
  for layer in ('conv2', 'conv4', 'conv5', 'fc6', 'fc7'):
    model[layer].init_bias = 1.0
  return config
