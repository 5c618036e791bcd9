"""Overlapping pooling (paper section 3.4): windows of 3 or of 2, stride 2.

    python -m experiments.ablation_pooling --workdir=runs/ablation_pooling
    python -m experiments.ablation_pooling --workdir=runs/small --data=cifar10

Without overlap is net #147 of the 2012 source. Its conv2 is padded by 1 and its
conv5 not at all, so that its last maps are as large as those of the other: the
sides are 55-28-26-13-13-13-11-6 (CHM layers-147.cfg).
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_pooling',
  claim='Overlapping pooling "reduces the top-1 and top-5 error rates by 0.4% '
  'and 0.3%" (paper section 3.4).',
  variants={
    'overlapping': ablations.BASELINE,
    'not overlapping': sweep.Variant(
      {
        'model.pool.size': 2,
        'model.pool.ceil': True,
        'model.conv2.padding': (1, 1),
        'model.conv5.padding': (0, 0),
      },
      {
        'num_epochs': 90.0,
        'schedule.drops': ((23, 0.1), (51, 0.1), (79, 0.1)),
        'schedule.layer_drops.conv1': ((79, 0.0),),
        'data.color_noise_epochs': 0.0,
      },
      published=0.41058,
      source='CHM layer-params-147.cfg',
    ),
  },
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
