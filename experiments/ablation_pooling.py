"""Overlapping pooling (paper section 3.4): windows of 3 or of 2, stride 2.

python -m experiments.ablation_pooling --workdir=runs/pooling
python -m experiments.ablation_pooling --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_pooling')
