"""Two towers (paper section 3.2): against one, and against two apart.

python -m experiments.ablation_towers --workdir=runs/towers
python -m experiments.ablation_towers --workdir=runs/small --data=cifar10
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_towers')
