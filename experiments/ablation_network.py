"""All ablations of the network at once, against one baseline.

python -m experiments.ablation_network --workdir=runs/ablation_network
python -m experiments.ablation_network --workdir=runs/small --data=cifar10
"""

from experiments import (
  ablation_activation,
  ablation_depth,
  ablation_lrn,
  ablation_pooling,
  ablation_towers,
  ablations,
  sweep_program,
)

EXPERIMENT = ablations.together(
  'ablation_network',
  [
    ablation_lrn.EXPERIMENT,
    ablation_pooling.EXPERIMENT,
    ablation_towers.EXPERIMENT,
    ablation_depth.EXPERIMENT,
    ablation_activation.EXPERIMENT,
  ],
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
