"""Activations (paper section 3.1): ReLU, and functions that saturate.

python -m experiments.ablation_activation --workdir=runs/activation
python -m experiments.ablation_activation --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_activation')
