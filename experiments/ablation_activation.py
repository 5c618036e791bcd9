"""Activations (paper section 3.1): ReLU, and functions that saturate.

    python -m experiments.ablation_activation --workdir=runs/activation
    python -m experiments.ablation_activation --workdir=runs/small \
        --data=cifar10

All train at ReLU's rates; `experiments.relu_vs_tanh` gives each its own. The
paper names |tanh| for Jarrett et al. (2009); relu6 is a ReLU that saturates.
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

_OTHERS = ('relu6', 'tanh', 'abs_tanh', 'hard_tanh', 'sigmoid')
EXPERIMENT = ablations.ablation(
  name='ablation_activation',
  claim='"Deep convolutional neural networks with ReLUs train several times '
  'faster than their equivalents with tanh units" (paper section 3.1). Here: '
  "errors after equally long, at ReLU's rates.",
  variants={'relu': ablations.BASELINE}
  | {name: sweep.Variant({'model.activation': name}) for name in _OTHERS},
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
