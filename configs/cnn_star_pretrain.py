r"""The paper's CNN*, stage 2: six convolutions learn ImageNet's Fall 2011.

    python main.py --workdir=runs/cnn_star_pretrain \
        --config=configs/cnn_star_pretrain.py:folder=/my/fall2011 \
        --config.init_from=runs/cnn_star_2009

Run #146-2011 of the 2012 source: all of ImageNet's Fall 2011 release (15
million images, 22,000 classes, paper section 6.2), which comes as a folder of
class folders. The convolutions are those of `cnn_star_2009`. Before the head
stands a linear bottleneck, fc7b, of 1,024 units a column without dropout. No
error was published for it.

Known (CHM layers-146-2011.cfg, layer-params-146-2011.cfg and its notes): rates
of weights .001 in the convolutions and .01 above, .001 everywhere from epoch 6;
stopped at 8.11. Not known, and taken from the other runs of that time: biases
at .02 throughout. Not yet run by us: no ImageNet at hand.
"""

import ml_collections

from alexnet_jax import config as config_lib
from configs import cnn_star_2009

_CONVOLUTIONS = (*cnn_star_2009.CONVOLUTIONS, 'conv6')
_DENSE = ('fc6', 'fc7', 'fc7b', 'fc8')


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """CHM layers-146-2011.cfg; 110,605,267 parameters for its 21,843 classes."""
  config = cnn_star_2009.get_config(data)
  config.model.layers = (*_CONVOLUTIONS, *_DENSE)
  config.model.fc7b = config_lib.dense(1024, after=())
  config.init_from = 'runs/cnn_star_2009'
  config.init_fresh = ','.join(_DENSE)
  config_lib.set_multipliers(config)
  config.optimizer.rate_multipliers['conv6/kernel'] = 0.1
  config.schedule.layer_drops = {
    f'{layer}/kernel': ((6, 0.1),) for layer in _DENSE
  }
  config.num_epochs = 8.11
  return config
