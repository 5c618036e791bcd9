r"""The paper's ablations: what each claims, and the networks that test it.

All start from `configs/alexnet_2012.py`, the network #145 of the 2012 source.
Each has a program of its own, such as `experiments.ablation_lrn`.

Small recipes, for data on which a run takes minutes: the eight layers in two
towers with their norms, but narrow. They start from He's initialisation and
inputs of about unit variance (as configs/quickstart.py does), because the
paper's sigma of .01 and biases of 1 need many more steps to leave chance. The
ablations of what acts against overfitting use a tenth of CIFAR-10, where there
is some overfitting.

A folder of pictures, such as the ten ImageNet classes of Imagenette, is trained
on at the paper's width, with crops of 224 out of 256 pixels, for 40 epochs of
about 10,000 pictures:

    python -m experiments.ablation_pictures --workdir=runs/pictures \
        --data=folder=/my/imagenette --seeds=1,2,3

`ablation_pictures_half` is for the same pictures on a CPU:
`configs/alexnet_half.py` for 16 epochs, one view.

Decided before these runs: seeds 1 to 3, Student's t on differences paired by
seed. Rates are the best on seed 0: ReLU's .005 among .0025, .005 and .01, and
tanh's .01 among these and .02. Three seeds whose differences spread by .005
tell .012 from zero. A table counts if the last two evaluations of its baseline
differ by less than .005.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from experiments import notebook
from experiments.sweeps import program
from experiments.sweeps.experiment import Experiment, Variant


def _published(run: str, **changed) -> Variant:
  """Returns a run of the notebook with its source.

  Args:
    run: Name of the run.
    **changed: Fields of the variant to replace.
  """
  source = {'source': f'CHM layer-params-{run}.cfg'}
  return dataclasses.replace(notebook.variant(run), **source | changed)


_worse = functools.partial(Variant, is_worse=True)
_BASELINE = _published('145')
_FIRST_RATE = {
  'optimizer.learning_rate': 0.005,
  'schedule.layer_drops.conv1': (),
}
_SMALL = {
  **notebook.NARROW,
  **_FIRST_RATE,
  'batch_size': 64,
  'data.color_noise_epochs': 0.0,
}
_TEN_EPOCHS = _SMALL | {
  'num_epochs': 10.0,
  'schedule.drops': ((1, 2.0), (8, 0.1)),
}
_FEW_IMAGES = _SMALL | {
  'data.train_examples': 5000,
  'num_epochs': 60.0,
  'schedule.drops': ((6, 2.0), (48, 0.1)),
}
_PICTURES = (
  notebook.FAST_START
  | _FIRST_RATE
  | {
    'num_epochs': 40.0,
    'schedule.drops': ((1, 2.0), (26, 0.1), (36, 0.1)),
    'data.color_noise_epochs': 30.0,
    'eval_every_epochs': 2.0,
  }
)


def _ablation(
  name: str,
  claim: str,
  variants: Mapping[str, Variant],
  *,
  cifar10: Mapping[str, object] = _TEN_EPOCHS,
) -> Experiment:
  """Returns an experiment whose first variant is `_BASELINE`.

  Args:
    name: Name of the experiment.
    claim: What the paper says.
    variants: Variants by name.
    cifar10: Small recipe for CIFAR-10.
  """
  return Experiment(
    name,
    claim,
    'configs/alexnet_2012.py',
    variants,
    # Ten views, as for the published numbers, take long: at the end only.
    overrides={'eval.views': 10, 'eval_every_epochs': 0.0},
    small={'cifar10': cifar10, 'shapes': _TEN_EPOCHS},
    pictures=_PICTURES,
  )


_LRN = _ablation(
  'ablation_lrn',
  '"Response normalization reduces our top-1 and top-5 error rates by 1.4% and '
  '1.2%" (paper section 3.3).',
  {
    'with': _BASELINE,
    # #148 has neither LRN nor the spatial norm.
    'without': _published('148'),
  },
)

_POOLING = _ablation(
  'ablation_pooling',
  'Overlapping pooling "reduces the top-1 and top-5 error rates by 0.4% and '
  '0.3%" (paper section 3.4).',
  {
    'overlapping': _BASELINE,
    'not overlapping': _published('147'),
  },
)

_TOWERS = _ablation(
  'ablation_towers',
  'Two GPUs reduce "our top-1 and top-5 error rates by 1.7% and 1.2%" against '
  'a net with half as many kernels in each convolutional layer on one (paper '
  'section 3.2; on ILSVRC-2010).',
  {
    'two towers': _BASELINE,
    # #145-half has half of the maps, but conv5 and the fully-connected layers
    # stay whole.
    'one tower': _published(
      '145-half',
      published=None,
      source='CHM layer-params-145-half.cfg, of ILSVRC-2010: 0.3917, where two '
      'towers have 0.3747; its last drop is assumed, at epoch 79',
      is_worse=True,
    ),
    # In #150 conv2 has 160 maps a column, fc6 4,096 units and fc7 2,048. The
    # columns meet at fc8 alone.
    'two towers apart': _published('150'),
  },
)

# Without conv3, the towers meet at conv4. Without conv5, its pool stays, and
# fc6 reads conv4's 384 maps in place of 256: this network has 30 % more
# parameters than the whole one (79,396,968, not 60,965,224).
_DEPTH = _ablation(
  'ablation_depth',
  '"Removing any of the middle layers results in a loss of about 2% for the '
  'top-1 performance of the network" (paper section 7).',
  {
    'eight layers': _BASELINE,
    'without conv3': _worse({'model.omit': 'conv3'}),
    'without conv4': _worse({'model.omit': 'conv4'}),
    'without conv5': _worse({'model.omit': 'conv5'}),
  },
)

# All train at ReLU's rates; `experiments.relu_vs_tanh` gives each its own. The
# paper names |tanh| for Jarrett et al. (2009); relu6 is a ReLU that saturates.
_ACTIVATION = _ablation(
  'ablation_activation',
  '"Deep convolutional neural networks with ReLUs train several times faster '
  'than their equivalents with tanh units" (paper section 3.1). Here: errors '
  "after equally long, at ReLU's rates.",
  {
    'relu': _BASELINE,
    'relu6': Variant({'model.activation': 'relu6'}),
    'tanh': Variant({'model.activation': 'tanh'}),
    'abs_tanh': Variant({'model.activation': 'abs_tanh'}),
    'hard_tanh': Variant({'model.activation': 'hard_tanh'}),
    'sigmoid': Variant({'model.activation': 'sigmoid'}),
  },
)

_DROPOUT = _ablation(
  'ablation_dropout',
  '"Without dropout, our network exhibits substantial overfitting" (paper '
  'section 4.2).',
  {
    'with': _BASELINE,
    'without': _worse({'model.omit': 'dropout'}),
  },
  cifar10=_FEW_IMAGES,
)

# Without crops, training sees the centre of each image only. Evaluation is the
# same for all.
_AUGMENTATION = _ablation(
  'ablation_augmentation',
  'Without crops and mirror images, "our network suffers from substantial '
  'overfitting" (paper section 4.1).',
  {
    'with': _BASELINE,
    'without crops': _worse({'data.random_crop': False}),
    'without mirror images': _worse({'data.flip': False}),
    'without both': _worse({'data.random_crop': False, 'data.flip': False}),
  },
  cifar10=_FEW_IMAGES,
)

_COLOR = _ablation(
  'ablation_color',
  'Noise along the principal components of colour "reduces the top-1 error '
  'rate by over 1%" (paper section 4.1).',
  {
    'with': _BASELINE,
    'without': _worse({'data.color_noise': 'none'}),
  },
  cifar10=_FEW_IMAGES,
)


def _together(
  name: str,
  ablations: Sequence[Experiment],
  cifar10: Mapping[str, object] = _TEN_EPOCHS,
) -> Experiment:
  """Returns several ablations as one, whose baseline is trained once."""
  variants = {'baseline': _BASELINE}
  for ablation in ablations:
    subject = ablation.name.removeprefix('ablation_')
    _, *others = ablation.variants.items()
    variants |= {f'{subject} {what}': variant for what, variant in others}
  claims = '\n'.join(f'- {ablation.claim}' for ablation in ablations)
  return _ablation(name, claims, variants, cifar10=cifar10)


_ON_PICTURES = dataclasses.replace(
  _ablation(
    'ablation_pictures',
    'What the paper and the 2012 source say of ImageNet, tried on few of its '
    'classes.',
    {
      'baseline': _BASELINE,
      'without norms': _published('148'),
      'lrn after conv1 alone': _published('167'),
      'pools that do not overlap': _published('147'),
      'one tower': _TOWERS.variants['one tower'],
      'two towers apart': _published('150'),
      'tanh at its best rate': Variant(
        {'model.activation': 'tanh', 'optimizer.learning_rate': 0.01}
      ),
      'without dropout': _worse({'model.omit': 'dropout'}),
      'without crops': _worse({'data.random_crop': False}),
      'without mirror images': _worse({'data.flip': False}),
    },
  ),
  small={},
)

# The variants whose fields fit any width, and tanh at twice ReLU's rate.
_AT_HALF_WIDTH = dataclasses.replace(
  _ON_PICTURES,
  name='ablation_pictures_half',
  config='configs/alexnet_half.py',
  variants={
    name: dataclasses.replace(_ON_PICTURES.variants[name], config='')
    for name in (
      'baseline',
      'without dropout',
      'without crops',
      'without mirror images',
      'without norms',
      'lrn after conv1 alone',
      'pools that do not overlap',
    )
  }
  | {'tanh at .01': _ON_PICTURES.variants['tanh at its best rate']},
  overrides={'eval.views': 1},
  pictures={'eval_every_epochs': 1.0},
)

_OF_NETWORK = (_LRN, _POOLING, _TOWERS, _DEPTH, _ACTIVATION)
_AGAINST_OVERFITTING = (_DROPOUT, _AUGMENTATION, _COLOR)
_ALL = (
  *_OF_NETWORK,
  *_AGAINST_OVERFITTING,
  _ON_PICTURES,
  _AT_HALF_WIDTH,
  _together('ablation_network', _OF_NETWORK),
  _together('ablation_overfitting', _AGAINST_OVERFITTING, _FEW_IMAGES),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}


def run(name: str) -> None:
  """Runs the ablation of that name as the command line says."""
  program.run(EXPERIMENTS[name])
