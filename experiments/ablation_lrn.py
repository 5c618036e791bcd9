"""Response normalization (paper section 3.3): with and without.

    python -m experiments.ablation_lrn --workdir=runs/ablation_lrn
    python -m experiments.ablation_lrn --workdir=runs/small --data=cifar10

Without is net #148 of the 2012 source, which has neither LRN nor the spatial
norm.
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_lrn',
  claim='"Response normalization reduces our top-1 and top-5 error rates by '
  '1.4% and 1.2%" (paper section 3.3).',
  variants={
    'with': ablations.BASELINE,
    'without': sweep.Variant(
      {'model.omit': 'lrn,spatial_norm'},
      {
        'num_epochs': 97.0,
        'schedule.drops': ((22, 0.1), (44, 0.1), (86, 0.1)),
        'schedule.layer_drops.conv1': ((69, 0.1), (73, 0.0)),
        'data.color_noise_epochs': 69.0,
      },
      published=0.42034,
      source='CHM layer-params-148.cfg',
    ),
  },
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
