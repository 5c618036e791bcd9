"""Two towers (paper section 3.2): against one, and against two apart.

    python -m experiments.ablation_towers --workdir=runs/ablation_towers
    python -m experiments.ablation_towers --workdir=runs/small --data=cifar10

One tower is net #145-half of the 2012 source: half of the maps, with conv5 and
the fully-connected layers kept whole. Two apart are its net #150: conv2 has 160
maps and fc6 4,096 units a column, fc7 2,048, and columns meet at fc8 alone.
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_towers',
  claim='Two GPUs reduce "our top-1 and top-5 error rates by 1.7% and 1.2%" '
  'against a net with half as many kernels in each convolutional layer on one '
  '(paper section 3.2; on ILSVRC-2010).',
  variants={
    'two towers': ablations.BASELINE,
    'one tower': sweep.Variant(
      {
        'model.towers': 1,
        'model.conv5.features': 256,
        'model.fc6.features': 4096,
        'model.fc7.features': 4096,
      },
      {
        'num_epochs': 96.0,
        'schedule.drops': ((20, 0.1), (48, 0.1), (79, 0.1)),
        'schedule.layer_drops.conv1': ((66, 0.1), (72, 0.0)),
        'data.color_noise_epochs': 66.0,
      },
      {
        'model.conv5.features': 48,
        'model.fc6.features': 256,
        'model.fc7.features': 256,
      },
      source='CHM layer-params-145-half.cfg, of ILSVRC-2010: 0.3917, where two '
      'towers have 0.3747; its last drop is assumed, at epoch 79',
    ),
    'two towers apart': sweep.Variant(
      {
        'model.conv3.gather': False,
        'model.fc6.gather': False,
        'model.fc7.gather': False,
        'model.conv2.features': 160,
        'model.fc6.features': 4096,
        'model.fc7.features': 2048,
      },
      {
        'num_epochs': 92.0,
        'schedule.drops': ((25, 0.1), (49, 0.1), (79, 0.1)),
        'schedule.layer_drops.conv1': ((66, 0.1), (72, 0.0)),
        'data.color_noise_epochs': 66.0,
      },
      {
        'model.conv2.features': 30,
        'model.fc6.features': 256,
        'model.fc7.features': 128,
      },
      published=0.4183,
      source='CHM layer-params-150.cfg',
    ),
  },
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
