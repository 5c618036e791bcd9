"""All that acts against overfitting, left out one by one, with one baseline.

python -m experiments.ablation_overfitting --workdir=runs/ablation_overfitting
python -m experiments.ablation_overfitting --workdir=runs/small --data=cifar10
"""

from experiments import (
  ablation_augmentation,
  ablation_color,
  ablation_dropout,
  ablations,
  sweep_program,
)

EXPERIMENT = ablations.together(
  'ablation_overfitting',
  [
    ablation_dropout.EXPERIMENT,
    ablation_augmentation.EXPERIMENT,
    ablation_color.EXPERIMENT,
  ],
  against_overfitting=True,
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
