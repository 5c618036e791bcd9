r"""What the ablations share: they start from `alexnet_2012`.

For data on which one takes minutes, not days, there are small recipes: the
eight layers in two towers with their norms, narrow, from He's initialisation
and inputs of about unit variance (as in configs/quickstart.py); the paper's
sigma .01 and biases of 1 need many more steps to leave chance. What acts
against overfitting is shown on a tenth of CIFAR-10, where there is some.

For a folder of pictures, such as the ten ImageNet classes of Imagenette, the
networks are as wide as the paper's and see crops of 224 out of 256 pixels, for
40 epochs of about 10,000 pictures:

    python -m experiments.ablation_network --workdir=runs/imagenette \
        --data=folder=/my/imagenette --seeds=1,2,3
"""

from collections.abc import Mapping, Sequence

from alexnet_jax.sweeps import sweep

# Net #145 of the 2012 source.
BASELINE = sweep.Variant(published=0.40664, source='CHM layer-params-145.cfg')
_WIDTHS = {
  'conv1': 12,
  'conv2': 24,
  'conv3': 32,
  'conv4': 32,
  'conv5': 24,
  'fc6': 128,
  'fc7': 128,
}
_NETWORK = {
  'model.init': 'he',
  'data.scale': 64.0,
  'batch_size': 64,
  'optimizer.learning_rate': 0.005,
  'schedule.layer_drops.conv1': (),
  'data.color_noise_epochs': 0.0,
  'eval.views': 1,
}
for _layer, _features in _WIDTHS.items():
  _NETWORK[f'model.{_layer}.features'] = _features
  _NETWORK[f'model.{_layer}.init_bias'] = 0.0

_TEN_EPOCHS = _NETWORK | {
  'num_epochs': 10.0,
  'schedule.drops': ((1, 2.0), (8, 0.1)),
}
_FEW_IMAGES = _NETWORK | {
  'data.train_examples': 5000,
  'num_epochs': 60.0,
  'schedule.drops': ((6, 2.0), (48, 0.1)),
}


_PICTURES = {
  'model.init': 'he',
  'data.scale': 64.0,
  'optimizer.learning_rate': 0.005,
  'num_epochs': 40.0,
  'schedule.drops': ((1, 2.0), (26, 0.1), (36, 0.1)),
  'schedule.layer_drops.conv1': (),
  'data.color_noise_epochs': 30.0,
  'eval_every_epochs': 2.0,
}
for _layer in _WIDTHS:
  _PICTURES[f'model.{_layer}.init_bias'] = 0.0


def ablation(
  name: str,
  claim: str,
  variants: Mapping[str, sweep.Variant],
  *,
  against_overfitting: bool = False,
) -> sweep.Experiment:
  """An experiment with `alexnet_2012`; views are as of the published numbers.

  Args:
    name: as `sweep.Experiment`.
    claim: likewise.
    variants: likewise; the first is `BASELINE`.
    against_overfitting: whether that is what is left out.
  """
  cifar10 = _FEW_IMAGES if against_overfitting else _TEN_EPOCHS
  return sweep.Experiment(
    name,
    claim,
    'configs/alexnet_2012.py',
    variants,
    # Ten views of all of validation: at the end only.
    overrides={'eval.views': 10, 'eval_every_epochs': 0.0},
    small={'cifar10': cifar10, 'shapes': _TEN_EPOCHS},
    pictures=_PICTURES,
  )


def together(
  name: str,
  experiments: Sequence[sweep.Experiment],
  *,
  against_overfitting: bool = False,
) -> sweep.Experiment:
  """Several ablations against one baseline, which is trained once.

  Args:
    name: as `sweep.Experiment`.
    experiments: whose first variants are `BASELINE`.
    against_overfitting: as `ablation`.
  """
  variants = {'baseline': BASELINE}
  for experiment in experiments:
    about = experiment.name.removeprefix('ablation_')
    _, *others = experiment.variants.items()
    variants |= {f'{about} {what}': variant for what, variant in others}
  claim = '\n'.join(f'- {e.claim}' for e in experiments)
  return ablation(
    name, claim, variants, against_overfitting=against_overfitting
  )
