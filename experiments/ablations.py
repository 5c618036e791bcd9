"""What the ablations share: they start from `alexnet_2012`.

For data on which one takes minutes, not days, there are small recipes: the
eight layers in two towers with their norms, narrower, from He's initialisation
and inputs of about unit variance (as in configs/quickstart.py); the paper's
sigma .01 and biases of 1 need many more steps to leave chance.
"""

from collections.abc import Mapping

from alexnet_jax import sweep

# Net #145 of the 2012 source.
BASELINE = sweep.Variant(published=0.40664, source='CHM layer-params-145.cfg')
_WIDTHS = {
  'conv1': 24,
  'conv2': 48,
  'conv3': 64,
  'conv4': 64,
  'conv5': 48,
  'fc6': 256,
  'fc7': 256,
}
_NETWORK = {
  'model.init': 'he',
  'data.scale': 64.0,
  'batch_size': 64,
  'optimizer.learning_rate': 0.005,
  'schedule.layer_drops.conv1': (),
  'data.color_noise_epochs': 0.0,
  'eval_every_epochs': 1.0,
}
for _layer, _features in _WIDTHS.items():
  _NETWORK[f'model.{_layer}.features'] = _features
  _NETWORK[f'model.{_layer}.init_bias'] = 0.0

_RECIPES = {
  'cifar10': _NETWORK
  | {'num_epochs': 20.0, 'schedule.drops': ((1, 2.0), (14, 0.1), (18, 0.1))},
  'shapes': _NETWORK
  | {'num_epochs': 10.0, 'schedule.drops': ((1, 2.0), (8, 0.1))},
}


def ablation(
  name: str, claim: str, variants: Mapping[str, sweep.Variant]
) -> sweep.Experiment:
  """An experiment with `alexnet_2012`; views are as of the published numbers.

  Args:
    name: as `sweep.Experiment`.
    claim: likewise.
    variants: likewise; the first is `BASELINE`.
  """
  return sweep.Experiment(
    name,
    claim,
    'configs/alexnet_2012.py',
    variants,
    overrides={'eval.views': 10},
    small=_RECIPES,
  )
