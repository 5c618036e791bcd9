"""All ablations of the network against one baseline.

python -m experiments.ablation_network --workdir=runs/network
python -m experiments.ablation_network --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_network')
