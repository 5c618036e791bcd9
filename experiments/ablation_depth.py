"""Depth (paper section 7): each of the middle convolutional layers removed.

    python -m experiments.ablation_depth --workdir=runs/ablation_depth
    python -m experiments.ablation_depth --workdir=runs/small --data=cifar10

Where conv3 goes, the towers meet at conv4. Where conv5 goes, its pool stays and
fc6 reads conv4's 384 maps in place of 256, so that this net has 30 % more
parameters than the whole one (79,396,968, not 60,965,224).
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

EXPERIMENT = ablations.ablation(
  name='ablation_depth',
  claim='"Removing any of the middle layers results in a loss of about 2% for '
  'the top-1 performance of the network" (paper section 7).',
  variants={
    'eight layers': ablations.BASELINE,
    'without conv3': sweep.Variant({'model.omit': 'conv3'}),
    'without conv4': sweep.Variant({'model.omit': 'conv4'}),
    'without conv5': sweep.Variant({'model.omit': 'conv5'}),
  },
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
