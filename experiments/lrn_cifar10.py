r"""LRN on CIFAR-10 (paper section 3.3, footnote 3): with and without.

    python -m experiments.lrn_cifar10 --workdir=runs/lrn_cifar10
    python -m experiments.lrn_cifar10 --workdir=runs/small --data=shapes

The networks differ in nothing else and train for the same 160 epochs. The norm
of size 5 stands before each pool, as in the first version of cuda-convnet's
11pct file; that of size 9 after the first and before the second, as in the file
that the footnote points to. That file differs in widths, decay and length as
well (160 and 520 epochs): `configs/cifar10_11pct.py`.

A shorter schedule of the same shape, 7/8 of it at the first rate:

    python -m experiments.lrn_cifar10 --workdir=runs/lrn_short \
        --set=num_epochs=8 --set='schedule.drops=((7,.1),(7.5,.1))'
"""

from experiments.sweeps import program
from experiments.sweeps.experiment import Experiment, Variant

EXPERIMENT = Experiment(
  name='lrn_cifar10',
  claim='On CIFAR-10, "a four-layer CNN achieved a 13% test error rate without '
  'normalization and 11% with normalization" (paper section 3.3).',
  config='configs/cifar10_lrn.py',
  variants={
    'without LRN': Variant(
      {'model.omit': 'lrn'}, published=0.13, source='paper section 3.3'
    ),
    'with LRN of size 5': Variant(
      source='first version of the 11pct file (dnouri/cuda-convnet 3878e8f)'
    ),
    'with LRN of size 9': Variant(
      {
        'model.lrn.n': 9,
        'model.conv1.after': ('act', 'max_pool', 'lrn'),
      },
      published=0.11,
      source='paper section 3.3, of the whole 11pct net',
    ),
  },
  overrides={'eval_every_epochs': 0.0},  # ten views: at the end only
  data='cifar10',
  small={
    'shapes': {'num_epochs': 10.0, 'schedule.drops': ((8, 0.1), (9, 0.1))}
  },
)

if __name__ == '__main__':
  program.run(EXPERIMENT)
