r"""cuda-convnet's CIFAR-10 net "18pct": four layers, no augmentation.

    python main.py --config=configs/cifar10.py --workdir=runs/cifar10

Expected: about 18 % test error after 140 epochs (cuda-convnet's front page:
18 % in 20 minutes on a GTX 580). It gave 0.1759 with seed 0, in 2 h 14 min
on 2 CPU cores beside other work (experiments/results/cifar10_18pct). A short
run,

    python main.py --config=configs/cifar10.py --workdir=runs/cifar10_short \
        --config.batch_size=64 --config.num_epochs=15 \
        --config.schedule.drops='((11,.1),(14,.1))'

gave 0.2393 in 21 minutes (experiments/results/cifar10_18pct_short).
"""

import ml_collections

from alexnet_jax import config as config_lib


def get_config(data: str = 'cifar10') -> ml_collections.ConfigDict:
  """cuda-convnet's layers-18pct.cfg and its wiki."""
  config = config_lib.base()
  config_lib.set_layers(
    config.model,
    conv1=config_lib.conv(
      32,
      5,
      padding=(2, 2),
      init_std=1e-4,
      after=('max_pool', 'act', 'spatial_norm'),
    ),
    conv2=config_lib.conv(
      32, 5, padding=(2, 2), after=('act', 'avg_pool', 'spatial_norm')
    ),
    conv3=config_lib.conv(64, 5, padding=(2, 2), after=('act', 'avg_pool')),
    fc10=config_lib.head(),
  )
  config.model.pool.ceil = True
  config.model.spatial_norm.update({'size': 3, 'scale': 5e-5})
  config.optimizer.learning_rate = 0.001
  config.optimizer.bias_rate_multiplier = 2.0
  config.optimizer.weight_decay = 0.004
  config.optimizer.decay_multipliers.fc10 = 250.0  # a decay of 1
  config_lib.set_multipliers(config)
  config_lib.for_data(config, data)
  config.data.crop_size = config.data.image_size
  config.data.flip = False
  config.num_epochs = 140.0
  config.schedule.drops = ((120, 0.1), (130, 0.1))
  config.schedule.biases.name = 'epochs'  # no drops: docs/Methodology.md
  return config
