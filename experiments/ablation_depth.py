"""Depth (paper section 7): each of the middle convolutional layers removed.

python -m experiments.ablation_depth --workdir=runs/depth
python -m experiments.ablation_depth --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_depth')
