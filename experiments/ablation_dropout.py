"""Dropout (paper section 4.2): with and without.

python -m experiments.ablation_dropout --workdir=runs/ablation_dropout
python -m experiments.ablation_dropout --workdir=runs/small --data=cifar10
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_dropout',
  claim='"Without dropout, our network exhibits substantial overfitting" '
  '(paper section 4.2).',
  variants={
    'with': ablations.BASELINE,
    'without': sweep.Variant({'model.omit': 'dropout'}),
  },
  against_overfitting=True,
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
