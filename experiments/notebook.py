r"""The numbered runs of the 2012 source ("lab notebook"), as one table.

    python -m experiments.notebook
    python -m experiments.notebook --run=167 --workdir=runs/notebook
    python -m experiments.notebook --workdir=runs/notebook \
        --run=145-2010,145-half:folder=/my/ilsvrc2010
    python -m experiments.notebook --workdir=runs/small \
        --run=145,167,170 --data=cifar10

    python -m experiments.notebook --run=170 --output=rates.png

The first prints every run: what differs from its parent, data, published errors
(notebook.tsv), and its config, or why it cannot be expressed. The others train
some. Errors are compared with those of the first. Runs on other data than
ILSVRC-2012 need theirs after a colon. With --data=cifar10, shapes or
folder=PATH the network is narrow (a folder has its whole width), starts from
He's initialisation, and takes half of the minibatch at half of the rate. The
whole schedule happens in 10 epochs (40 of a folder). The last draws the
learning rates of a run, with the notes' own as dots where they give levels.

What a run does is a few fields beside its number, and the run that it is like.
The notes of 2012 leave some things open:

- Biases keep their first rate in runs with drops by hand. Final files have that
  or a tenth of it, and no note says since when.
- Runs with a form (linear, exp, dexp, jdexp) last 95 epochs, as #169 did. It is
  stated of no other. Those that branched from a backup of #169 start afresh.
- Noise or conv1 that no note switches off stays on (#147, #149, #153, #154,
  #160, #162, #170-control, #170-256, #170-256-0.015, #180).
- The last drop of #145-half is that of #145. #149 ends with its last entry.

Sources: CHM (computerhistory/AlexNet-Source-Code @2f8b81f), notes and rates in
layers/layer-params-RUN.cfg, nets in layers/layers-RUN.cfg, forms in src/lr.cu.
"""

import csv
import dataclasses
import functools
import importlib
import pathlib
import re
from collections.abc import Iterable

import jax
import ml_collections
import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, optim
from alexnet_jax.data import ilsvrc
from alexnet_jax.tools import figures, tables
from alexnet_jax.tools import flags as tool_flags
from experiments.sweeps import program
from experiments.sweeps.experiment import Experiment, Overrides, Variant

_FLAGS = flags.FLAGS
_TABLE = pathlib.Path(__file__).with_suffix('.tsv')
_EXAMPLES = ilsvrc.COUNTS['train']
# Lines of a run's learning rates, and where conv1 leaves them.
_RATES = (
  ('weights', ('conv2', 'kernel'), 'C0-'),
  ('biases', ('conv2', 'bias'), 'C1-'),
  ("conv1's weights", ('conv1', 'kernel'), 'k:'),
)
_LEGEND = """\
Data: ILSVRC-2010, -2012; Fall 2009, 2011 of ImageNet. Published: top-1/top-5
errors on T10 (test of 2010), V10, V12 (validation), with m (ten views), c
(centre), or ? (not said). † is inferred, ‡ derived from the numbers."""


def _staircase(
  a: int, b: int, noise: int, conv1: int, d: int, end: int
) -> dict[str, object]:
  """Returns the fields of a schedule by hand.

  Args:
    a: Epoch of the drop from .01 to .001.
    b: Epoch of the drop to .0001.
    noise: Epoch at which colour noise ends and conv1 drops to .00001, or 0.
    conv1: Epoch at which conv1 is frozen.
    d: Epoch of the last drop of the other layers, or 0.
    end: Epochs of the run.
  """
  of_conv1 = ((noise, 0.1), (conv1, 0.0))
  return {
    'schedule.drops': tuple((epoch, 0.1) for epoch in (a, b, d) if epoch),
    'schedule.layer_drops.conv1': tuple(pair for pair in of_conv1 if pair[0]),
    'data.color_noise_epochs': float(noise),
    'num_epochs': float(end),
  }


def _off(noise: int, conv1: int = 0) -> dict[str, object]:
  """Returns the fields that end colour noise and freeze conv1, 0 for never."""
  return {
    'data.color_noise_epochs': float(noise),
    'schedule.layer_drops.conv1': ((conv1, 0.0),) if conv1 else (),
  }


# The run or the config that a run is like, and what differs.
FIELDS: dict[str, tuple[str, Overrides]] = {
  '145': ('configs/alexnet_2012.py', {}),
  '145-rate-back-up': (
    '145',
    {
      'optimizer.learning_rate': 0.001,
      'optimizer.bias_rate_multiplier': 20.0,
      'optimizer.rate_multipliers.conv1': 0.0,
      'schedule.drops': ((16, 0.1), (33, 0.1)),  # at 107 and 124, after 91
      'num_epochs': 44.0,
      **_off(33),
    },
  ),
  '145-2010': ('145', _staircase(23, 51, 68, 72, 78, 93)),
  '145-half': (
    '145-2010',
    {
      'model.towers': 1,
      'model.conv5.features': 256,
      'model.fc6.features': 4096,
      'model.fc7.features': 4096,
      **_staircase(20, 48, 66, 72, 79, 96),
    },
  ),
  '146-2009': ('configs/cnn_star_2009.py', {}),
  '146-2011': ('configs/cnn_star_pretrain.py', {}),
  '146-2012-2011': ('configs/cnn_star.py', {}),
  '146-2012-2009': (
    '146-2012-2011',
    {
      'schedule.layer_drops.conv1/kernel': ((3, 0.1),),
      'schedule.layer_drops.conv1': ((4, 0.0),),
      'schedule.layer_drops.fc8/kernel': (),
      'num_epochs': 52.0,
    },
  ),
  # conv2 is padded by 1 and conv5 not at all, so that its last maps are as
  # large as those of #145: 55-28-26-13-13-13-11-6.
  '147': (
    '145',
    {
      'model.pool.size': 2,
      'model.pool.ceil': True,
      'model.conv2.padding': (1, 1),
      'model.conv5.padding': (0, 0),
      **_staircase(23, 51, 0, 79, 79, 90),
    },
  ),
  '148': (
    '145',
    {
      'model.omit': 'lrn,spatial_norm',
      **_staircase(22, 44, 69, 73, 86, 97),
    },
  ),
  '149': (
    '145',
    {
      'model.conv5.after': ('lrn', 'max_pool', 'act'),
      **_staircase(21, 54, 0, 0, 0, 66),
    },
  ),
  '150': (
    '145',
    {
      'model.conv3.gather': False,
      'model.fc6.gather': False,
      'model.fc7.gather': False,
      'model.conv2.features': 160,
      'model.fc6.features': 4096,
      **_staircase(25, 49, 66, 72, 79, 92),
    },
  ),
  '153': (
    '145',
    {
      'schedule.name': 'linear',
      'schedule.total_factor': 1000.0,
      'schedule.drops': (),
      'schedule.biases.name': '',
      'num_epochs': 95.0,
      **_off(0),
    },
  ),
  '154': ('153', {'schedule.name': 'exp'}),
  '155': (
    '154',
    {
      'optimizer.learning_rate': 0.02,
      'schedule.total_factor': 4000.0,
      **_off(61, 74),
    },
  ),
  '156': (
    '155',
    {
      'schedule.total_factor': 2000.0,
      'schedule.layer_drops.conv1': ((72, 0.0),),
    },
  ),
  '157': (
    '155',
    {
      'optimizer.learning_rate': 0.04,
      'schedule.total_factor': 8000.0,
      **_off(62, 73),
    },
  ),
  '158': ('157', {'schedule.total_factor': 20000.0, **_off(63, 77)}),
  '160': (
    '156',
    {'schedule.name': 'dexp', 'schedule.layer_drops.conv1': ()},
  ),
  '162': (
    '153',
    {
      'schedule.name': 'dexp',
      'schedule.levels': 3,
      'data.color_noise_epochs': 61.0,
    },
  ),
  '163': (
    '153',
    {
      'schedule.name': 'dexp',
      'optimizer.decay_multipliers.fc6': 2.0,
      'optimizer.decay_multipliers.fc7': 2.0,
      'optimizer.decay_multipliers.fc8': 2.0,
      **_off(61, 73),
    },
  ),
  '165': (
    '163',
    {
      'schedule.total_factor': 500.0,
      'schedule.biases.name': 'dexp',
      **_off(63, 78),
    },
  ),
  '166': (
    '153',
    {
      'schedule.name': 'dexp',
      'schedule.biases.name': 'dexp',
      'model.conv2.after': ('lrn', 'spatial_norm', 'max_pool', 'act'),
      **_off(64, 73),
    },
  ),
  '167': (
    '166',
    {
      'model.conv2.after': ('act', 'max_pool'),
      'data.color_noise_epochs': 63.0,
    },
  ),
  '169': (
    '153',
    {
      'schedule.name': 'dexp',
      'schedule.total_factor': 500.0,
      'schedule.biases.name': 'dexp',
      **_off(60, 73),
    },
  ),
  '169-80-epochs': ('169', {'num_epochs': 80.0, **_off(53, 74)}),
  '170': ('169', {'schedule.total_factor': 250.0, **_off(68, 74)}),
  '170-control': ('170', _off(60)),
  '170-256': ('170', {'batch_size': 256, **_off(0)}),
  '170-256-0.015': ('170-256', {'optimizer.learning_rate': 0.015}),
  '170-256-double': (
    '170-256',
    {'optimizer.learning_rate': 0.02, **_off(61, 73)},
  ),
  '171': (
    '169',
    {'schedule.levels': 5, 'schedule.layer_drops.conv1': ((72, 0.0),)},
  ),
  '174': ('169', {'schedule.name': 'jdexp', **_off(62, 74)}),
  # From epoch 91 on, in its last level, as if the factor had been 250.
  '175': (
    '169',
    {
      'schedule.total_factor': 125.0,
      'schedule.drops': ((91, 0.5),),
      'schedule.layer_drops.conv1': ((75, 0.0),),
    },
  ),
  '177': (
    '170',
    {
      'model.conv4.after': ('act', 'dropout'),
      'model.conv4.keep': 0.8,
      **_off(60, 73),
    },
  ),
  '180': ('174', {'schedule.total_factor': 250.0, **_off(0)}),
}
# The finished run, with the same seed, whose weights are the start.
_START = {
  '145-rate-back-up': '145',
  '146-2009': '145',
  '146-2011': '146-2009',
  '146-2012-2009': '146-2009',
  '146-2012-2011': '146-2011',
}

_WIDTHS = {
  'conv1': 12,
  'conv2': 24,
  'conv3': 32,
  'conv4': 32,
  'conv5': 24,
  'fc6': 128,
  'fc7': 128,
}
# The paper's sigma of .01 and biases of 1 need many more steps to leave chance.
FAST_START = {
  'model.init': 'he',
  'data.scale': 64.0,
  **{f'model.{layer}.init_bias': 0.0 for layer in _WIDTHS},
}
NARROW = {
  **FAST_START,
  **{f'model.{layer}.features': count for layer, count in _WIDTHS.items()},
  'eval.views': 1,
}
_CONV6 = {'model.conv6.features': 24, 'model.conv6.init_bias': 0.0}
_NARROW_PARTS = {
  '145-half': {
    'model.conv5.features': 48,
    'model.fc6.features': 256,
    'model.fc7.features': 256,
  },
  '150': {'model.conv2.features': 30, 'model.fc6.features': 256},
  '146-2009': _CONV6,
  '146-2011': _CONV6 | {'model.fc7b.features': 64},
  '146-2012-2009': _CONV6,
  '146-2012-2011': _CONV6,
}
_FEW_EPOCHS, _EPOCHS_OF_A_FOLDER = 10.0, 40.0


@functools.cache
def table() -> dict[str, dict[str, str]]:
  """Returns the rows of notebook.tsv by run."""
  with _TABLE.open(encoding='utf-8') as file:
    rows = csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE)
    return {row['run']: row for row in rows}


def _base(run: str) -> tuple[str, dict[str, object]]:
  """Returns the config of a run, and all fields that differ from it."""
  like, fields = FIELDS[run]
  if like not in FIELDS:
    return like, dict(fields)
  config, inherited = _base(like)
  return config, {**inherited, **fields}


def create_config(run: str) -> ml_collections.ConfigDict:
  """Returns the config of a run, on ILSVRC-2012."""
  path, fields = _base(run)
  module = importlib.import_module(path.removesuffix('.py').replace('/', '.'))
  config = module.get_config()
  config.update_from_flattened_dict(fields)
  return config


def published(run: str) -> dict[str, float]:
  """Returns the published top-1 errors of a run, by set and views."""
  results = filter(None, table()[run]['published'].split('; '))
  pairs = (re.sub('[†‡]', '', text).split(' ', 1) for text in results)
  return {views: float(rates.split('/')[0]) for rates, views in pairs}


def variant(run: str) -> Variant:
  """Returns a run as a variant of an experiment."""
  config, fields = _base(run)
  of_model = {k: v for k, v in fields.items() if k.startswith('model.')}
  return Variant(
    of_model,
    {name: value for name, value in fields.items() if name not in of_model},
    _NARROW_PARTS.get(run, {}),
    next(iter(published(run).values()), None),
    config=config,
    start=_START.get(run, ''),
  )


def _short_variant(run: str, epochs: float) -> Variant:
  """Returns a run for small data, with its whole schedule in few epochs.

  Args:
    run: Name of the run.
    epochs: Epochs of the short run.
  """
  config, whole = create_config(run), variant(run)
  share = epochs / config.num_epochs

  def shorten(pairs: Iterable[tuple[float, float]]) -> tuple:
    return tuple((epoch * share, factor) for epoch, factor in pairs)

  layers = config.schedule.layer_drops.items()
  short = {
    'num_epochs': epochs,
    'batch_size': config.batch_size // 2,
    'optimizer.learning_rate': config.optimizer.learning_rate / 2,
    'data.color_noise_epochs': config.data.color_noise_epochs * share,
    'schedule.drops': shorten(config.schedule.drops),
    **{f'schedule.layer_drops.{name}': shorten(p) for name, p in layers},
  }
  fields = {**whole.schedule, **short, **whole.overrides}
  return dataclasses.replace(whole, overrides=fields)


def experiment(text: str, data: str) -> Experiment:
  """Returns the experiment of the runs to train.

  Args:
    text: Value of --run, as '167' or '145-2010,145-half:folder=PATH'.
    data: Value of --data, or ''.

  Raises:
    UserError: If a run cannot be trained, or not on these data.
  """
  names, _, own_data = text.partition(':')
  runs = names.split(',')
  for run in runs:
    _check(run, data or own_data)
  if data:
    is_folder = data.startswith('folder=')
    epochs = _EPOCHS_OF_A_FOLDER if is_folder else _FEW_EPOCHS
    variants = {run: _short_variant(run, epochs) for run in runs}
  else:
    variants = {run: variant(run) for run in runs}
  measured = next(iter(published(runs[0])), 'none')
  year = table()[runs[0]]['data'].rstrip('†‡')
  return Experiment(
    'notebook',
    'Runs of the 2012 source, compared with the first. Published errors are '
    f'on {measured}, see experiments/notebook.tsv.',
    '',
    {
      run: dataclasses.replace(one, published=published(run).get(measured))
      for run, one in variants.items()
    },
    # Ten views, as for the published numbers, take long: at the end only.
    overrides={'eval.views': 10, 'eval_every_epochs': 0.0},
    data=own_data or f'imagenet{year}',
    small={'cifar10': NARROW, 'shapes': NARROW},
    pictures=FAST_START,
    seeds=(0,),
  )


def _check(run: str, data: str) -> None:
  rows = table()
  if run not in rows:
    raise errors.UserError(
      f'--run={run} does not exist; `python -m experiments.notebook` lists all.'
    )
  if run not in FIELDS:
    raise errors.UserError(
      f'--run={run} cannot be expressed ({rows[run]["obstacle"]}); choose from '
      f'{", ".join(FIELDS)}.'
    )
  trained_on = rows[run]['data']
  if not data and not trained_on.startswith('2012'):
    raise errors.UserError(
      f'--run={run} was trained on the ImageNet of {trained_on}; name the '
      f'folder of these pictures, as --run={run}:folder=PATH, or other --data.'
    )


def describe() -> str:
  """Returns the whole table in Markdown."""
  head = ('run', 'differs from its parent', 'data', 'published', 'config')
  rows = [
    (
      run,
      row['change'],
      row['data'],
      row['published'],
      _base(run)[0] if run in FIELDS else f'none: {row["obstacle"]}',
    )
    for run, row in table().items()
  ]
  return f'{tables.markdown(head, rows, "lllll")}\n\n{_LEGEND}'


def draw_rates(run: str) -> figures.Figure:
  """Draws a run's learning rates by epoch, on ILSVRC-2012.

  The notes' rates are dots, each in the middle of its level.

  Args:
    run: Name of a run that can be expressed.
  """
  config = create_config(run)
  steps = functools.partial(
    optim.epochs_to_steps,
    num_examples=_EXAMPLES,
    batch_size=config.batch_size,
  )
  end = steps(config.num_epochs)
  rates = optim.create_learning_rate_fn(config, steps, end)
  layers = {name: {'kernel': 0.0, 'bias': 0.0} for name in ('conv1', 'conv2')}
  at = np.linspace(0, end - 1, 4000).round()
  found = jax.vmap(lambda step: rates(step, 1.0, layers))(at)
  chart = figures.create(6.4, 3.2, layout='constrained')
  axis = chart.subplots()
  epochs = at * config.batch_size / _EXAMPLES
  for label, (layer, kind), style in _RATES:
    values = np.where(found[layer][kind] > 0, found[layer][kind], np.nan)
    axis.plot(epochs, values, style, label=label)
  notes = [text.split() for text in table()[run]['rates'].split(';') if text]
  for levels, colour in zip(notes, ('C0', 'C1'), strict=False):
    middle = (np.arange(len(levels)) + 0.5) * config.num_epochs / len(levels)
    axis.plot(middle, list(map(float, levels)), 'o', color=colour)
  axis.set(xlabel='epoch', ylabel=f'learning rate of #{run}', yscale='log')
  axis.yaxis.set_major_formatter('{x:g}')
  axis.legend(frameon=False)
  return chart


def main(_) -> None:
  """Prints the table, draws rates, or trains the runs of --run."""
  if _FLAGS.output:
    _check(_FLAGS.run, 'any')
    figures.write(draw_rates(_FLAGS.run), _FLAGS.output)
  elif _FLAGS.run:
    program.sweep(experiment(_FLAGS.run, _FLAGS.data), _FLAGS.data)
  elif _FLAGS.workdir or _FLAGS.results:
    raise errors.UserError(
      '--run is missing; name the runs to train, as --run=145,167, or give no '
      'flag for the table of all.'
    )
  else:
    print(describe())


def _define_flags() -> None:
  program.define_sweep_flags()
  program.define_data_flag()
  flags.DEFINE_string(
    'run', '', 'Runs to train, with :DATA where it is not ILSVRC-2012.'
  )
  tool_flags.define_picture(None)


if __name__ == '__main__':
  command_line.run(main, _define_flags)
