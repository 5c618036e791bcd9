"""EfficientNet-B0: Tan and Le 2019, the network with a plain recipe.

    python main.py --config=configs/efficientnet_b0.py --workdir=runs/b0
    python main.py --config=configs/efficientnet_b0.py:cifar10 --workdir=runs/b

Expected: no published number belongs to this recipe. The paper has errors of
.229 /
.067 on ILSVRC-2012, with RMSProp, AutoAugment, crops of random size, averaged
weights and 350 epochs; here are SGD with Nesterov's momentum, a rate that falls
as a cosine, squares of 224 pixels and 100 epochs.

Time: not measured; a step is half the multiply-adds of AlexNet's.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import models


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """Weight decay and label smoothing are the paper's."""
  config = config_lib.base()
  models.set_network(config, 'efficientnet_b0')
  config_lib.for_data(config, data)
  config_lib.scale_to_unit_variance(config)
  config.batch_size = 256
  config.num_epochs = 100.0
  config.optimizer.learning_rate = 0.1
  config.optimizer.nesterov = True
  config.optimizer.rate_inside = False
  config.optimizer.weight_decay = 1e-5
  config.optimizer.label_smoothing = 0.1
  config.schedule.name = 'cosine'
  if config.data.image_size <= 64:
    config_lib.pad_crops(config)
    config.model.efficientnet.stem_stride = 1
  return config
