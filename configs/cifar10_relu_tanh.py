r"""The paper's Figure 1: a four-layer net on CIFAR-10, ReLU or tanh.

    python main.py --config=configs/cifar10_relu_tanh.py --workdir=runs/relu
    python main.py --config=configs/cifar10_relu_tanh.py --workdir=runs/tanh \
        --config.model.activation=tanh

"No regularization of any kind": the 18pct net without its norms, crops,
mirror images or decay. Which four-layer net the paper used, with which rates,
is not known.

Expected: ReLU reaches 25 % training error six times faster than tanh (paper
section 3.1), each with a learning rate of its own, which these two commands do
not look for: `python -m experiments.relu_vs_tanh` does.
"""

import ml_collections

from configs import cifar10


def get_config(data: str = 'cifar10') -> ml_collections.ConfigDict:
  """The 18pct net without any regularization."""
  config = cifar10.get_config(data)
  config.model.omit = 'spatial_norm'
  config.optimizer.weight_decay = 0.0
  config.num_epochs = 60.0
  config.schedule.drops = ()
  return config
