"""The runs of 2012 against the source's notes: sizes, rates, differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from alexnet_jax import errors, optim, train_step, validate
from alexnet_jax.models import alexnet
from experiments import notebook
from experiments.sweeps import experiment, runner
from tests.runs import config_of

IMAGENET = 1281167


def _flat(config):
  return traverse_util.flatten_dict(
    config.to_dict(), keep_empty_nodes=True, sep='.'
  )


def _plan(text, workdir, data=''):
  return experiment.plan(
    notebook.experiment(text, data),
    workdir,
    data=data,
    overrides={'init_from': 'runs/a'},
  )


def test_the_table_has_every_run_and_its_numbers():
  rows = notebook.table()
  # 107 runs of the 97 files of layers/, and two of layers-cifar/.
  assert len(rows) == 109
  for run, row in rows.items():
    assert (run in notebook.FIELDS) != bool(row['obstacle'])
    assert row['change'] and row['data']
  text = notebook.describe()
  assert len(text.splitlines()) == 2 + 109 + 1 + 3
  for run, published in {
    '94': '0.381072/0.176089 T10‡ ?',
    '137-2010': '0.376167/0.171247 T10 m; 0.377960/0.171020 V10 m; '
    '0.394153/0.182784 V10 c',
    '145': '0.406640/0.182100 V12‡ m†',
    '145-rate-back-up': '0.402500/0.179940 V12‡ m',
    '145-2010': '0.374727/0.169987 T10 m; 0.390247/0.182953 T10 c',
    '145-half': '0.391680/0.182287 T10 m',
    '146-2012-2011': '0.389900/0.166220 V12 m',
    '156': '0.407640/0.183500 V12‡ m; 0.428933/0.198336 V12‡ c',
    '167': '0.404880/0.181180 V12‡ m; 0.426772/0.197590 V12‡ c',
    '170-fade': '0.402500/0.181160 V12‡ m; 0.422944/0.195334 V12‡ c',
    '177': '0.406900/0.183040 V12‡ m; 0.424376/0.197056 V12‡ c',
  }.items():
    assert rows[run]['published'] == published
    assert f'| {run} | {rows[run]["change"]} | ' in text
  assert notebook.variant('167').published == 0.40488
  assert notebook.variant('149').published is None


def test_only_errors_of_the_same_pictures_and_views_are_compared():
  def published(text):
    variants = notebook.experiment(text, 'cifar10').variants
    return [variant.published for variant in variants.values()]

  assert published('145,145-half,167') == [0.40664, None, 0.40488]
  assert published('145-2010,145-half') == [0.374727, 0.39168]
  assert published('163,169') == [0.429085, 0.425298]  # the centre crop
  assert published('149,145') == [None, None]


@pytest.mark.parametrize('run', notebook.FIELDS)
def test_a_run_differs_in_exactly_its_fields(run):
  like, fields = notebook.FIELDS[run]
  config = notebook.create_config(run)
  validate.check_config(config)
  if like in notebook.FIELDS:
    own, other = _flat(config), _flat(notebook.create_config(like))
    differing = {k: own[k] for k in own.keys() | other if own[k] != other[k]}
    assert differing == dict(fields)


# The other runs have the network of one of these.
PARAMETERS = {
  '145': 60965224,
  '145-half': 59798312,
  '146-2009': 99182152,
  '146-2011': 110605267,
  '146-2012-2009': 61555304,
  '146-2012-2011': 61555304,
  '147': 60965224,
  '148': 60965224,
  '149': 60965224,
  '150': 60714408,
  '153': 60965224,
  '166': 60965224,
  '167': 60965224,
  '177': 60965224,
}
CLASSES = {'146-2009': 10184, '146-2011': 21843}


@pytest.mark.parametrize('run', PARAMETERS)
def test_parameters_are_the_sources(run):
  config = notebook.create_config(run)
  config.model.num_classes = CLASSES.get(run, 1000)
  params = train_step.abstract_train_state(config).params
  assert sum(p.size for p in jax.tree.leaves(params)) == PARAMETERS[run]


def _rates(config, epochs):
  """(weights, biases, conv1's weights) one step before each epoch, and at it.

  Epochs become steps as everywhere: the first step not before them.
  """

  def steps(epoch):
    return optim.epochs_to_steps(epoch, IMAGENET, config.batch_size)

  fn = optim.create_learning_rate_fn(config, steps, steps(config.num_epochs))
  params = {
    layer: {'kernel': 0.0, 'bias': 0.0} for layer in ('conv1', 'conv2', 'fc7')
  }
  at = [steps(epoch) + offset for epoch in epochs for offset in (-1, 0)]
  rates = jax.vmap(lambda step: fn(step, 1.0, params))(jnp.array(at))
  np.testing.assert_array_equal(
    rates['conv2']['kernel'], rates['fc7']['kernel']
  )
  return rates


# Weights' rates, then biases', each with the epochs where they change.
QUARTERS = (23.75, 47.5, 71.25)
TENTH = ((0.02, 0.002), (47.5,))
FIFTHS = (19, 38, 57, 76)
OF_169 = (0.01, 0.00126, 1.587e-4, 2e-5)
OF_170 = (0.01, 0.0015874, 2.5198e-4, 4e-5)
JUMPS = (23.75, 35.625, 47.5, 59.375, 71.25, 83.125, 85.5)
LEVELS = {
  '160': ((0.02, 1.587e-3, 1.26e-4, 1e-5), QUARTERS, None),
  '162': ((0.01, 3.162e-4, 1e-5), (95 / 3, 190 / 3), None),
  '163': ((0.01, 0.001, 1e-4, 1e-5), QUARTERS, None),
  '165': (OF_169, QUARTERS, TENTH),
  '166': ((0.01, 0.001, 1e-4, 1e-5), QUARTERS, TENTH),
  '167': ((0.01, 0.001, 1e-4, 1e-5), QUARTERS, TENTH),
  '169': (OF_169, QUARTERS, TENTH),
  '169-80-epochs': (OF_169, (20, 40, 60), ((0.02, 0.002), (40,))),
  '170': (OF_170, QUARTERS, TENTH),
  '170-control': (OF_170, QUARTERS, TENTH),
  '170-256': (OF_170, QUARTERS, TENTH),
  '170-256-0.015': (
    tuple(1.5 * rate for rate in OF_170),
    QUARTERS,
    ((0.03, 0.003), (47.5,)),
  ),
  '170-256-double': (
    tuple(2 * rate for rate in OF_170),
    QUARTERS,
    ((0.04, 0.004), (47.5,)),
  ),
  '171': ((0.01, 0.0021147, 4.472e-4, 9.457e-5, 2e-5), FIFTHS, TENTH),
  # Half-jumps to the geometric mean of two levels, up to 90 % of the run.
  '174': (
    (0.01, 0.00126, 3.55e-3, 1.587e-4, 4.472e-4, 2e-5, 5.634e-5, 2e-5),
    JUMPS,
    TENTH,
  ),
  '180': (
    (0.01, 0.0015874, 3.984e-3, 2.5198e-4, 6.325e-4, 4e-5, 1.004e-4, 4e-5),
    JUMPS,
    TENTH,
  ),
  '175': ((0.01, 0.002, 4e-4, 8e-5, 4e-5), (*QUARTERS, 91), TENTH),
  '177': (OF_170, QUARTERS, TENTH),
}


@pytest.mark.parametrize('run', LEVELS)
def test_levels_are_the_published_rates(run):
  weights, epochs, biases = LEVELS[run]
  config = notebook.create_config(run)
  # Biases without a schedule of their own have twice the weights' rate.
  bias_rates, bias_epochs = biases or ([2 * rate for rate in weights], epochs)

  def pairs(rates):
    return [rates[i // 2 + i % 2] for i in range(2 * len(rates) - 2)]

  actual = _rates(config, epochs)['conv2']['kernel']
  np.testing.assert_allclose(actual, pairs(weights), rtol=5e-4)
  actual = _rates(config, bias_epochs)['conv2']['bias']
  np.testing.assert_allclose(actual, pairs(bias_rates), rtol=5e-4)
  assert config.num_epochs == (80 if run == '169-80-epochs' else 95)


@pytest.mark.parametrize(
  'run, first, last',
  [
    ('154', 0.01, 1e-5),
    ('155', 0.02, 5e-6),
    ('156', 0.02, 1e-5),
    ('157', 0.04, 5e-6),
    ('158', 0.04, 2e-6),
    ('153', 0.01, 1e-5),
  ],
)
def test_smooth_rates_are_the_published_ones(run, first, last):
  rates = _rates(notebook.create_config(run), [1e-9, 47.5, 95])['conv2']
  middle = (first + last) / 2 if run == '153' else math.sqrt(first * last)
  expected = [first, middle, last]
  # At the first step, in the middle, and where the last step would end.
  np.testing.assert_allclose(
    rates['kernel'][jnp.array([0, 3, 5])], expected, rtol=1e-4
  )
  np.testing.assert_allclose(rates['bias'], 2 * rates['kernel'], rtol=1e-6)


# Epochs at which colour noise ends and conv1 is off; 0: not noted.
OFF = {
  '155': (61, 74),
  '156': (61, 72),
  '157': (62, 73),
  '158': (63, 77),
  '160': (61, 0),
  '162': (61, 0),
  '163': (61, 73),
  '165': (63, 78),
  '166': (64, 73),
  '167': (63, 73),
  '169': (60, 73),
  '169-80-epochs': (53, 74),
  '170': (68, 74),
  '170-control': (60, 0),
  '170-256': (0, 0),
  '170-256-double': (61, 73),
  '171': (60, 72),
  '174': (62, 74),
  '175': (60, 75),
  '177': (60, 73),
  '180': (0, 0),
}


@pytest.mark.parametrize('run', OFF)
def test_noise_and_conv1_are_off_when_noted(run):
  noise, conv1 = OFF[run]
  config = notebook.create_config(run)
  assert config.data.color_noise_epochs == noise
  rates = _rates(config, [conv1 or 95])
  before, after = rates['conv1']['kernel']
  bias, bias_after = rates['conv1']['bias']
  assert before == rates['conv2']['kernel'][0] > 0 and bias > 0
  if conv1:
    assert after == bias_after == 0


# a, b, n, c, d and the end: .01 to .001, to .0001, conv1 to .00001 (colour
# noise too), conv1 to 0, the rest to .00001.
STAIRCASES = {
  '145': (25, 51, 67, 72, 79, 91),
  '145-2010': (23, 51, 68, 72, 78, 93),
  '145-half': (20, 48, 66, 72, 79, 96),  # d is not known
  '147': (23, 51, 0, 79, 79, 90),
  '148': (22, 44, 69, 73, 86, 97),
  '149': (21, 54, 0, 0, 0, 66),
  '150': (25, 49, 66, 72, 79, 92),
}


@pytest.mark.parametrize('run', STAIRCASES)
def test_staircases_are_the_sources(run):
  a, b, noise, off, d, end = STAIRCASES[run]
  config = notebook.create_config(run)
  assert (config.num_epochs, config.data.color_noise_epochs) == (end, noise)
  for layer, epochs, levels in (
    ('conv2', (a, b, d), (0.01, 0.001, 1e-4, 1e-5)),
    ('conv1', (a, b, noise), (0.01, 0.001, 1e-4, 1e-5)),
    ('conv1', (off,), (1e-5 if noise else 1e-4, 0)),
  ):
    for i, epoch in enumerate(epochs):
      if epoch:
        actual = _rates(config, [epoch])[layer]['kernel']
        np.testing.assert_allclose(actual, levels[i : i + 2], rtol=1e-5)
  biases = _rates(config, [a, b, end])['conv2']['bias']
  np.testing.assert_allclose(biases, 0.02, rtol=1e-6)


@pytest.mark.parametrize(
  'run, layer, epoch, before, after',
  [
    ('145-rate-back-up', 'conv2', 107 - 91, 1e-3, 1e-4),
    ('145-rate-back-up', 'conv2', 124 - 91, 1e-4, 1e-5),
    ('145-rate-back-up', 'conv1', 107 - 91, 0, 0),
    ('146-2012-2009', 'conv1', 3, 1e-4, 1e-5),
    ('146-2012-2009', 'conv1', 4, 1e-5, 0),
    ('146-2012-2009', 'fc7', 22, 1e-3, 1e-4),
    ('146-2012-2009', 'fc7', 42, 1e-4, 1e-5),
    ('146-2012-2011', 'conv1', 5, 1e-4, 1e-5),
    ('146-2012-2011', 'conv1', 7, 1e-5, 0),
    ('146-2012-2011', 'fc7', 22, 1e-3, 1e-4),
  ],
)
def test_runs_from_weights_have_the_published_rates(
  run, layer, epoch, before, after
):
  config = notebook.create_config(run)
  actual = _rates(config, [epoch])[layer]['kernel']
  np.testing.assert_allclose(actual, [before, after], rtol=1e-5, atol=0)
  ends = {'145-rate-back-up': (33, 44), '146-2012-2009': (38, 52)}
  expected = ends.get(run, (38, 54))
  assert (config.data.color_noise_epochs, config.num_epochs) == expected
  if run == '146-2012-2009':  # its head has the rate of the others
    assert config.schedule.layer_drops['fc8/kernel'] == ()


@pytest.mark.parametrize(
  'run, layer, after',
  [
    ('149', 'conv5', ('lrn', 'max_pool', 'act')),
    ('166', 'conv2', ('lrn', 'spatial_norm', 'max_pool', 'act')),
    ('167', 'conv1', ('lrn', 'max_pool', 'act')),
    ('167', 'conv2', ('act', 'max_pool')),
    ('177', 'conv4', ('act', 'dropout')),
  ],
)
def test_operations_are_the_sources(run, layer, after):
  assert notebook.create_config(run).model[layer].after == after


def test_net_163_decays_its_dense_layers_twice_as_much():
  config = notebook.create_config('163')
  params = train_step.abstract_train_state(config).params
  decays = optim.decay_tree(params, config.optimizer)
  assert decays['conv5']['kernel'] == 5e-4
  assert [decays[f'fc{i}']['kernel'] for i in (6, 7, 8)] == [1e-3] * 3


def test_net_177_keeps_eight_tenths_of_conv4():
  config = notebook.create_config('177')
  config.update_from_flattened_dict(notebook.NARROW)
  rows = alexnet.layer_table(config.model)
  assert (rows['conv4'].keep, rows['fc6'].keep) == (0.8, 0.5)
  config.model.layers = ('conv4', 'fc8')
  model = train_step.create_model(config)
  images = jnp.ones((2, 12, 12, 3))
  params = model.init(jax.random.key(0), images)

  def conv4(train):
    _, state = model.apply(
      params,
      images,
      jnp.arange(2, dtype=jnp.uint32),
      train=train,
      rngs={'dropout': jax.random.key(1)},
      mutable='intermediates',
    )
    return np.stack(state['intermediates']['conv4_output'][0])

  evaluated, trained = conv4(False), conv4(True)
  positive = evaluated > 0
  kept = trained[positive] > 0
  # The mask is 0 or 1, and evaluation multiplies by .8.
  np.testing.assert_allclose(
    trained[positive][kept] * 0.8, evaluated[positive][kept], rtol=1e-5
  )
  assert abs(kept.mean() - 0.8) < 5 * math.sqrt(0.16 / kept.size)


@pytest.mark.parametrize('run', notebook.FIELDS)
def test_flags_make_the_config(tmp_path, monkeypatch, run):
  (planned,) = _plan(f'{run}:imagenet2012', tmp_path)
  expected = notebook.create_config(run)
  expected.eval.views, expected.eval_every_epochs = 10, 0.0
  expected.init_from = 'runs/a'
  config = config_of(planned, monkeypatch)
  assert _flat(config) == _flat(expected)


@pytest.mark.parametrize('data', ['cifar10', 'shapes'])
def test_small_runs_have_the_whole_schedule_in_ten_epochs(
  tmp_path, monkeypatch, data
):
  text = '145,150,167,170-256,146-2012-2011'
  plans = _plan(text, tmp_path, data)
  configs = [config_of(run, monkeypatch) for run in plans]
  for config in configs:
    assert (config.data.name, config.num_epochs) == (data, 10)
    train_step.abstract_train_state(config)
  of_145, of_150, of_167, of_170, of_146 = configs
  drops = [epoch * 9.1 for epoch, _ in of_145.schedule.drops]
  assert drops == pytest.approx([25, 51, 79])
  off = [epoch * 9.1 for epoch, _ in of_145.schedule.layer_drops.conv1]
  assert off == pytest.approx([67, 72])
  assert of_145.data.color_noise_epochs == pytest.approx(670 / 91)
  assert (of_145.batch_size, of_170.batch_size) == (64, 128)
  assert of_145.optimizer.learning_rate == 0.005
  assert of_150.model.conv2.features == 30
  assert (of_167.schedule.name, of_167.schedule.total_factor) == ('dexp', 1000)
  assert of_146.model.conv6.features == 24


def test_a_run_starts_from_its_parents_weights(tmp_path):
  plan = notebook.experiment('145-rate-back-up', 'shapes')
  with pytest.raises(errors.UserError, match='no finished run of 145, .*--set'):
    experiment.plan(plan, tmp_path, data='shapes')
  origin = tmp_path / '145' / 'seed-0'
  origin.mkdir(parents=True)
  (origin / runner.FINISHED).touch()
  (run,) = experiment.plan(plan, tmp_path, data='shapes')
  assert f'--config.init_from={origin}' in run.flags


@pytest.mark.parametrize(
  'text, data, message',
  [
    ('159', '', '--run=159 does not exist'),
    ('137', '', r'--run=137 cannot be expressed \(low-res input\); choose'),
    ('145-half', '', '2010; name the folder .* --run=145-half:folder=PATH'),
    ('145', 'mnist', '--data=mnist: notebook has no recipe'),
  ],
)
def test_runs_that_cannot_be_trained_are_refused(tmp_path, text, data, message):
  with pytest.raises(errors.UserError, match=message):
    _plan(text, tmp_path, data)


def test_runs_on_a_folder_are_whole_or_short(tmp_path):
  (whole,) = _plan('145-2010:folder=/a', tmp_path)
  (short,) = _plan('145-2010', tmp_path, 'folder=/a')
  assert '--config=configs/alexnet_2012.py:folder=/a' in whole.flags
  assert '--config=configs/alexnet_2012.py:folder=/a' in short.flags
  assert '--config.num_epochs=93.0' in whole.flags
  assert '--config.num_epochs=40.0' in short.flags
  assert notebook.experiment('145-2010', 'shapes').data == 'imagenet2010'
  assert notebook.experiment('167', '').data == 'imagenet2012'
