"""Dropout (paper section 4.2): with and without.

python -m experiments.ablation_dropout --workdir=runs/dropout
python -m experiments.ablation_dropout --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_dropout')
