"""Dropout (paper section 4.2): with and without.

python -m experiments.ablation_dropout --workdir=runs/ablation_dropout
python -m experiments.ablation_dropout --workdir=runs/small --data=cifar10
"""

from alexnet_jax import sweep
from experiments import small_recipes, sweep_program

EXPERIMENT = sweep.Experiment(
  name='ablation_dropout',
  claim='"Without dropout, our network exhibits substantial overfitting" '
  '(paper section 4.2).',
  config='configs/alexnet_2012.py',
  variants={
    'with': small_recipes.BASELINE,
    'without': sweep.Variant({'model.omit': 'dropout'}),
  },
  overrides=small_recipes.TEN_VIEWS,
  small=small_recipes.RECIPES,
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
