"""Colour noise (paper section 4.1): with and without.

python -m experiments.ablation_color --workdir=runs/color
python -m experiments.ablation_color --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_color')
