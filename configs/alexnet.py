"""AlexNet as the paper prints it: Krizhevsky, Sutskever, Hinton, NIPS 2012.

    python main.py --config=configs/alexnet.py --workdir=runs/alexnet
    python main.py --config=configs/alexnet.py:shapes --workdir=runs/shapes

Expected: no published number belongs to this recipe. The paper's numbers were
printed by the released source, `configs/alexnet_2012.py`, which differs in
eight places (see there). Biases of 1 with weights of sigma .01 can stall at
chance, a loss of ln(1000) = 6.91, for thousands of steps (BVLC/caffe#401); if
it does, start again with another seed or with `alexnet_2012`.

Time: the paper's took 5 to 6 days for 90 epochs on two GTX 580. Not yet run to
the end by us: no ImageNet at hand.
"""

import ml_collections

from alexnet_jax import config as config_lib


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """Paper sections 3 to 5. Features are those of one tower of two."""
  config = config_lib.base()
  config.model.towers = 2
  config_lib.set_layers(
    config.model,
    conv1=config_lib.conv(
      48, 11, stride=4, padding=(0, 3), after=('act', 'lrn', 'max_pool')
    ),
    conv2=config_lib.conv(
      128, 5, padding=(2, 2), init_bias=1.0, after=('act', 'lrn', 'max_pool')
    ),
    conv3=config_lib.conv(192, 3, padding=(1, 1), gather=True),
    conv4=config_lib.conv(192, 3, padding=(1, 1), init_bias=1.0),
    conv5=config_lib.conv(
      128, 3, padding=(1, 1), init_bias=1.0, after=('act', 'max_pool')
    ),
    fc6=config_lib.dense(2048, init_bias=1.0, after=('act', 'dropout')),
    fc7=config_lib.dense(2048, init_bias=1.0, after=('act', 'dropout')),
    fc8=config_lib.head(),
  )
  config_lib.set_multipliers(config)
  config_lib.for_data(config, data)
  config.data.color_noise = 'paper'
  # "Divide by 10 when the validation error stopped improving", three times.
  config.schedule.name = 'plateau'
  return config
