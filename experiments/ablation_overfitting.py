"""All that acts against overfitting, left out one by one.

python -m experiments.ablation_overfitting --workdir=runs/overfitting
python -m experiments.ablation_overfitting --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_overfitting')
