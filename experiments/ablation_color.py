"""Colour noise (paper section 4.1): with and without.

python -m experiments.ablation_color --workdir=runs/ablation_color
python -m experiments.ablation_color --workdir=runs/small --data=cifar10
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_color',
  claim='Noise along the principal components of colour "reduces the top-1 '
  'error rate by over 1%" (paper section 4.1).',
  variants={
    'with': ablations.BASELINE,
    'without': sweep.Variant({'data.color_noise': 'none'}),
  },
  against_overfitting=True,
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
