r"""The paper's CNN*, stage 1: six convolutions learn ImageNet's Fall 2009.

    python main.py --workdir=runs/cnn_star_2009 \
        --config=configs/cnn_star_2009.py:folder=/my/fall2009 \
        --config.init_from=runs/alexnet_2012@300000

Run #146-2009 of the 2012 source. It starts from the first five convolutions of
a run of `alexnet_2012` that has not ended yet (here step 300,000, epoch 30; the
source's was near its epoch 30); conv6 and the fully-connected layers are drawn
anew. No error was published for it. The paper's 67.4 and 40.9 % on Fall 2009
(section 6.1) belong to no run that was published.

Known (CHM layer-params-146-2009.cfg and its notes): rates of weights .001 in
conv1 to conv5 and .01 above, .001 everywhere from epoch 2.16; stopped at 6.65.
Not known, and taken from the other runs of that time: biases at .02 throughout;
conv6 starts like conv5. Not yet run by us: no ImageNet at hand.
"""

import ml_collections

from alexnet_jax import config as config_lib
from configs import alexnet_2012

CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """CHM layers-146-2009.cfg: `alexnet_2012` with conv6 over the last pool."""
  config = alexnet_2012.get_config(data)
  model = config.model
  model.layers = (*CONVOLUTIONS, 'conv6', 'fc6', 'fc7', 'fc8')
  model.conv6 = config_lib.conv(
    128, 3, padding=(1, 1), gather=True, init_std=0.03, init_bias=1.0
  )
  config.init_from = 'runs/alexnet_2012'
  config.init_fresh = 'conv6,fc6,fc7,fc8'
  config_lib.set_multipliers(config)
  for layer in CONVOLUTIONS:
    config.optimizer.rate_multipliers[f'{layer}/kernel'] = 0.1
  config.schedule.drops = ()
  config.schedule.layer_drops = {
    f'{layer}/kernel': ((2.16, 0.1),)
    for layer in ('conv6', 'fc6', 'fc7', 'fc8')
  }
  config.num_epochs = 6.65
  config.data.color_noise_epochs = 0.0
  return config
