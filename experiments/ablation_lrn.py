"""Response normalization (paper section 3.3): with and without.

python -m experiments.ablation_lrn --workdir=runs/lrn
python -m experiments.ablation_lrn --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_lrn')
