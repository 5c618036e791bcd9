"""Crops and mirror images (paper section 4.1): with and without.

    python -m experiments.ablation_augmentation --workdir=runs/augmentation
    python -m experiments.ablation_augmentation --workdir=runs/small \
        --data=cifar10

Without crops, training sees the centre of each image only; evaluation is the
same for all.
"""

from alexnet_jax.sweeps import sweep
from experiments import ablations, sweep_program

_NO_CROPS = {'data.random_crop': False}
_NO_FLIPS = {'data.flip': False}
EXPERIMENT = ablations.ablation(
  name='ablation_augmentation',
  claim='Without crops and mirror images, "our network suffers from '
  'substantial overfitting" (paper section 4.1).',
  variants={
    'with': ablations.BASELINE,
    'without crops': sweep.Variant(_NO_CROPS),
    'without mirror images': sweep.Variant(_NO_FLIPS),
    'without both': sweep.Variant(_NO_CROPS | _NO_FLIPS),
  },
  against_overfitting=True,
)

if __name__ == '__main__':
  sweep_program.run(EXPERIMENT)
