r"""The paper's CNN*: six convolutional layers, fine-tuned on ILSVRC-2012.

    python main.py --config=configs/cnn_star.py --workdir=runs/cnn_star \
        --config.init_from=runs/cnn_star_pretrain

Expected after pretraining on Fall 2011, with ten views on ILSVRC-2012
validation: top-1 error 0.3899, top-5 error 0.1662 (CHM layer-params-146; the
paper's Table 2 prints 39.0 and 16.6). Two such networks and five of
`alexnet_2012`, averaged (`experiments.error_table`), are its "7 CNNs*": 0.367
and 0.154. Not yet run by us: no ImageNet at hand.

No schedule of the fine-tuning was published: a tenth of the first rate, the
head's ten times that, dropped twice in thirty epochs, is our guess.
"""

import ml_collections

from configs import cnn_star_pretrain


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """`cnn_star_pretrain` from its own weights, with a new head."""
  config = cnn_star_pretrain.get_config(data)
  config.init_from = 'runs/cnn_star_pretrain'
  config.optimizer.learning_rate = 0.001
  config.optimizer.rate_multipliers.fc8 = 10.0
  config.num_epochs = 30.0
  config.data.color_noise_epochs = 20.0
  config.schedule.drops = ((10, 0.1), (20, 0.1))
  config.schedule.layer_drops = {}
  return config
