r"""LRN on CIFAR-10 (the paper's section 3.3, footnote 3): with and without.

    python main.py --config=configs/cifar10_lrn.py --workdir=runs/lrn
    python main.py --config=configs/cifar10_lrn.py --workdir=runs/no_lrn \
        --config.model.omit=lrn

cuda-convnet's "conv-local-13pct" net, with LRN of size 5 before each pool, as
in the first version of its "11pct" net (dnouri/cuda-convnet 3878e8f): a pair
that differs in nothing else. The footnote's file is the final version: LRN of
size 9, after the first pool and before the second. On this net that is

    --config.model.lrn.n=9 --config.model.conv1.after="('act','max_pool','lrn')"

and the whole 11pct net is `configs/cifar10_11pct.py`.

Expected with ten views: 13 % test error without and 11 % with LRN (the paper),
after 160 and 520 epochs; without LRN 12.6 % in cuda-convnet's own example
(docs/Methodology.md), whose first 100 epochs see 40,000 of the images; here all
160 see 50,000. `python -m experiments.lrn_cifar10` makes three runs of each,
which came to 11.9 % without and 12.5 % with LRN of size 5
(experiments/results/lrn_cifar10).
"""

import ml_collections

from alexnet_jax import config as config_lib


def get_config(data: str = 'cifar10') -> ml_collections.ConfigDict:
  """cuda-convnet's layers-conv-local-13pct.cfg, LRN added."""
  config = config_lib.base()
  config_lib.set_layers(
    config.model,
    conv1=config_lib.conv(
      64, 5, padding=(2, 2), init_std=1e-4, after=('act', 'lrn', 'max_pool')
    ),
    conv2=config_lib.conv(
      64, 5, padding=(2, 2), after=('act', 'lrn', 'max_pool')
    ),
    local3=config_lib.local(32, 3, padding=(1, 1), init_std=0.04),
    local4=config_lib.local(32, 3, padding=(1, 1), init_std=0.04),
    fc10=config_lib.head(),
  )
  config.model.pool.ceil = True
  config.model.lrn.update({'k': 1.0, 'alpha': 1e-3, 'alpha_over_n': True})
  config.optimizer.learning_rate = 0.001
  config.optimizer.bias_rate_multiplier = 2.0
  config.optimizer.weight_decay = 0.004
  config.optimizer.decay_multipliers.update({'conv1': 0.0, 'conv2': 0.0})
  config_lib.set_multipliers(config)
  config_lib.for_data(config, data)
  config.data.crop_size = config.data.image_size * 3 // 4  # 24 of 32
  config.num_epochs = 160.0
  config.schedule.drops = ((140, 0.1), (150, 0.1))
  config.eval.views = 10
  config.schedule.biases.name = 'epochs'  # no drops: docs/Methodology.md
  return config
