"""experiments.relatives: one recipe, published sizes, table and picture."""

import json

import pytest

from alexnet_jax import errors
from alexnet_jax.tools import describe
from alexnet_jax.workdir import files
from configs import alexnet, cifar10_lrn, googlenet
from experiments import relatives
from experiments.sweeps.experiment import plan
from tests.runs import config_of

# Parameters and multiply-adds of forms for CIFAR-10, published (CHEN) or
# counted by hand.
CIFAR10 = {
  'LeNet-5': (62_006, 651_720),
  'VGG-16': (15_253_578, 313_725_952),
  'EfficientNet-B0': (4_020_358, 31_979_392),
}


def _outside_of_the_network(config):
  """Returns the fields that one recipe shares, but for those without effect."""
  fields = files.flatten_config(json.loads(config.to_json()))
  return {
    name: value
    for name, value in fields.items()
    if not name.startswith('model.')
    and name != 'schedule.power'  # which a cosine does not read
    and '_multipliers' not in name
  }


@pytest.mark.parametrize('data', ['cifar10', 'imagenet2012'])
def test_eight_networks_have_one_recipe(tmp_path, monkeypatch, data):
  runs = plan(relatives.EXPERIMENT, tmp_path, data=data, seeds=[1])
  configs = {run.variant: config_of(run, monkeypatch) for run in runs}
  assert configs.keys() == relatives.YEARS.keys()
  first, *others = map(_outside_of_the_network, configs.values())
  assert all(other == first for other in others)
  for config in configs.values():
    multipliers = config.optimizer.rate_multipliers.to_dict().values()
    decays = config.optimizer.decay_multipliers.to_dict().values()
    assert {*multipliers, *decays} <= {1.0}
  if data == 'cifar10':
    for name, expected in CIFAR10.items():
      assert describe.costs(configs[name]) == expected


@pytest.mark.parametrize(
  'config, expected',
  [
    (alexnet, (60_965_224, 724_406_816)),
    (googlenet, (6_998_552, 1_582_671_872)),  # without its auxiliary heads
    # Two convolutions, two local layers and a dense one, counted by hand.
    (cifar10_lrn, (1_116_490, 18_517_248)),
  ],
)
def test_costs_are_the_published_ones(config, expected):
  assert describe.costs(config.get_config()) == expected


def _row(variant, seed, value, **fields):
  return {
    'variant': variant,
    'seed': seed,
    'status': 'finished',
    'value': value,
    'training_error': None,
    'epochs': 3.0,
    'parameters': 62_006,
    'multiply_adds': 651_720,
    'images_per_second': 1234.4,
    'memory': 5 * 2**20,
    **fields,
  }


def test_the_table_has_what_was_measured():
  rows = [
    _row('LeNet-5', 0, 0.5),
    _row('LeNet-5', 1, 0.4),
    _row('VGG-16', 0, 0.25, multiply_adds=313_725_952),
    {'variant': 'VGG-19', 'seed': 0, 'status': 'failed', 'reason': 'no memory'},
  ]
  text, _ = relatives.report(rows, 'cifar10')
  assert 'Data: cifar10. Epochs: 3.' in text
  assert (
    '| LeNet-5 | 1998 | 62,006 | 651,720 | 0.4500 ± 0.0707 | 0.5000 0.4000 | '
    '1,234.4 | 5 |\n'
    '| VGG-16 | 2014 | 62,006 | 313,725,952 | 0.2500 | 0.2500 | 1,234.4 | 5 |\n'
  ) in text
  assert 'No result:\n\n- VGG-19, seed 0: no memory\n' in text


def test_rows_of_other_experiments_are_refused():
  del (row := _row('AlexNet', 0, 0.5))['multiply_adds']
  for other in (row, _row('tanh', 0, 0.5)):
    with pytest.raises(errors.UserError, match='of this experiment'):
      relatives.report([other], '')
