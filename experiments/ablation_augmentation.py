"""Crops and mirror images (paper section 4.1): with and without.

python -m experiments.ablation_augmentation --workdir=runs/augmentation
python -m experiments.ablation_augmentation --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_augmentation')
