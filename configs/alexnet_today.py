r"""AlexNet with a start and a schedule of today: for pictures of your own.

    python main.py --config=configs/alexnet_today.py:folder=/my/pictures \
        --workdir=runs/mine

The network is the paper's, `configs/alexnet.py`. Weights have He's
initialisation, biases start at 0, and inputs have about unit variance. The rate
climbs for 3 epochs and then falls to 0 along a cosine. Nothing needs tuning.

The length follows from the size of the set: 30 epochs, of 50 steps at least. A
set of fewer than 6,400 pictures is gone through more than once in what counts
as an epoch, so that the shortest run has 1,500 steps.

On a CPU, pictures of half the size ask for a quarter of the multiply-adds:

    --config.data.image_size=128 --config.data.crop_size=112

Expected on Imagenette, at half of the width and of the pixels: validation top-1
error 0.261 +- 0.005, three seeds; the paper's recipe has 0.355 there, that of
2012 0.285 (`experiments.own_pictures`).
"""

import ml_collections

from alexnet_jax import config as config_lib
from configs import alexnet


def get_config(data: str = 'shapes') -> ml_collections.ConfigDict:
  """Returns the paper's network with a recipe for sets of any size."""
  config = alexnet.get_config(data)
  for name in config.model.layers:
    config.model[name].init_bias = 0.0
  config.model.init = 'he'
  config_lib.scale_to_unit_variance(config)
  config.num_epochs = 30.0
  config.min_epoch_steps = 50
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 3.0
  return config
