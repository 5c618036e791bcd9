r"""Eight networks from LeNet-5 to EfficientNet-B0, one recipe, one data set.

    python -m experiments.relatives --workdir=runs/relatives --data=cifar10
    python -m experiments.relatives --workdir=runs/relatives \
        --data=folder=/my/imagenette

Optimizer, rate, its warm-up and cosine, batches, epochs, crops and mirror
images are the same. Layers, first weights, dropout and batch normalisation are
each network's own, as in its config. The rate was tuned for no network, so that
the errors are not the best ones.

Two networks differ from their configs. AlexNet has the start of
`configs/quickstart.py`, since sigma .01 and biases of 1 need many more steps to
leave chance. LeNet-5, made for grey digits in 32 pixels, reads three colours:
on CIFAR-10 this is its only change. At 224 pixels its first dense layer has
44,944 inputs, not 400.

With --data=cifar10 the networks have the forms of docs/relatives.md for small
images, and few epochs, since a CPU takes hours for each; --set=num_epochs=1 and
--set=data.train_examples=5000 make them fewer, for all alike. Folders of
pictures want a GPU. Without --data the networks train on ImageNet.
"""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from alexnet_jax import errors
from alexnet_jax.tools import describe, figures, tables
from alexnet_jax.workdir import files, metrics_file
from experiments.sweeps import program, runner, table
from experiments.sweeps.experiment import Experiment, Variant

YEARS = {
  'LeNet-5': 1998,
  'AlexNet': 2012,
  'VGG-16': 2014,
  'VGG-19': 2014,
  'GoogLeNet': 2014,
  'ResNet-18': 2015,
  'ResNet-50': 2015,
  'EfficientNet-B0': 2019,
}
_HEAD = (
  'network, year, parameters, multiply-adds, test error, of each seed, '
  'images/s, memory in MiB'
)


def measure(workdir: pathlib.Path) -> runner.Result:
  """Returns what the table has beside the errors of a finished run."""
  parameters, multiply_adds = describe.costs(files.read_config(workdir))
  rows = metrics_file.read(workdir)
  timings = [row['timing'] for row in rows if row['split'] == 'train']
  return {
    'parameters': parameters,
    'multiply_adds': multiply_adds,
    'images_per_second': statistics.median(
      timing['examples_per_second'] for timing in timings
    ),
    'memory': max(timing['peak_memory_bytes'] for timing in timings),
  }


def report(
  results: Sequence[runner.Result], data: str
) -> tuple[str, figures.Figure]:
  """Returns the text of results.md and the picture.

  Args:
    results: One mapping for each run, with the fields of `measure`.
    data: Name of the data trained on.

  Raises:
    UserError: If the results are of another experiment.
  """
  finished = [result for result in results if result['status'] == 'finished']
  for result in finished:
    if result['variant'] not in YEARS or 'multiply_adds' not in result:
      raise errors.UserError(
        f'--results has a run of {result["variant"]} without its '
        'multiply-adds; give the results.jsonl of this experiment.'
      )
  rows = table.rows(EXPERIMENT, results)
  costs = {result['variant']: result for result in finished}
  cells = [_cells(row, costs[row.variant]) for row in rows if row.values]
  epochs = sorted({f'{result["epochs"]:.3g}' for result in finished})
  text = f"""{EXPERIMENT.claim} Data: {data or EXPERIMENT.data}. Epochs: \
{', '.join(epochs)}. The rate was tuned for no network.

{tables.markdown(_HEAD.split(', '), cells)}

Parameters and multiply-adds are those of one image at evaluation. Errors are
means and standard deviations over seeds. Images/s are of training, with its
input and with whatever else ran on the machine. Memory is JAX's
peak_bytes_in_use of a GPU or, on a CPU, the process's ru_maxrss, libraries
included. Both are of the last seed.
"""
  failures = [f'- {row.variant}, {f}' for row in rows for f in row.failures]
  text += '\n'.join(['\nNo result:\n', *failures, ''] if failures else [])
  return text, _draw([row for row in rows if row.values], costs)


def _cells(row: table.Row, cost: runner.Result) -> list[str]:
  values = list(row.values.values())
  return [
    row.variant,
    str(YEARS[row.variant]),
    f'{cost["parameters"]:,}',
    f'{cost["multiply_adds"]:,}',
    f'{row.mean:.4f}' + (f' ± {row.std:.4f}' if len(values) > 1 else ''),
    ' '.join(f'{value:.4f}' for value in values),
    f'{cost["images_per_second"]:,.1f}',
    f'{cost["memory"] / 2**20:,.0f}',
  ]


def _draw(
  rows: Sequence[table.Row], costs: Mapping[str, runner.Result]
) -> figures.Figure:
  """Returns a plot of error against multiply-adds, a disc for each network.

  Its area is in proportion to the parameters. Dashes are the seeds.
  """
  from matplotlib import ticker

  chart = figures.create(8, 4.4, layout='constrained')
  axis = chart.subplots()
  rows = sorted(rows, key=lambda row: -costs[row.variant]['multiply_adds'])
  largest = max((cost['parameters'] for cost in costs.values()), default=1)
  made = [costs[row.variant]['multiply_adds'] for row in rows] or [1]
  low, high = min(made) / 3, max(made) * 3
  ends = {0.02: 1.1, 0.9: 1.1}  # where the row of names of that height ends
  for place, row in enumerate(rows):
    x = costs[row.variant]['multiply_adds']
    area = 900 * costs[row.variant]['parameters'] / largest
    axis.scatter(x, row.mean, area, 'C0', alpha=0.35, linewidth=0)
    axis.plot([x] * len(row.values), list(row.values.values()), 'k_')
    height = (0.02, 0.9)[place % 2]
    # Right above or below the disc, or as near as the names before allow.
    ends[height] = min(math.log(x / low, high / low), ends[height] - 0.13)
    axis.annotate(
      f'{row.variant}\n{YEARS[row.variant]}',
      (x, row.mean),
      (ends[height], height),
      textcoords='axes fraction',
      ha='center',
      arrowprops={'arrowstyle': '-', 'color': '0.7', 'linewidth': 0.7},
    )
  axis.set(xscale='log', ylabel='top-1 error', xlim=(low, high))
  axis.set_xlabel('multiply-adds of an image (areas: parameters)')
  axis.xaxis.set_major_formatter(ticker.EngFormatter())
  axis.margins(y=0.35)
  axis.grid(color='0.92')
  axis.set_axisbelow(True)
  axis.spines[['top', 'right']].set_visible(False)
  return chart


_ALEXNET = {f'model.conv{n}.init_bias': 0.0 for n in (2, 4, 5)}
_ALEXNET |= {'model.fc6.init_bias': 0.0, 'model.fc7.init_bias': 0.0}
EXPERIMENT = Experiment(
  name='relatives',
  claim='Eight networks, one recipe, one data set.',
  config='configs/alexnet.py',
  variants={
    'LeNet-5': Variant({'model.lenet.padding': 0}, config='configs/lenet5.py'),
    'AlexNet': Variant({'model.init': 'he', **_ALEXNET}),
    'VGG-16': Variant(config='configs/vgg16.py'),
    'VGG-19': Variant(config='configs/vgg19.py'),
    'GoogLeNet': Variant(config='configs/googlenet.py'),
    'ResNet-18': Variant(config='configs/resnet18.py'),
    'ResNet-50': Variant(config='configs/resnet50.py'),
    'EfficientNet-B0': Variant(config='configs/efficientnet_b0.py'),
  },
  overrides={
    'batch_size': 128,
    'num_epochs': 90.0,
    'train_steps': 0,
    'keep_checkpoints': 1,  # eight networks fill a disk
    'data.channels': 3,
    'data.crop_size': 224,
    'data.flip': True,
    'data.subtract_mean': True,
    'data.scale': 58.0,
    'data.color_noise': 'none',
    'optimizer.learning_rate': 0.01,
    'optimizer.bias_rate_multiplier': 1.0,
    'optimizer.nesterov': False,
    'optimizer.rate_inside': False,
    'optimizer.weight_decay': 5e-4,
    'optimizer.decay_biases': False,
    'optimizer.label_smoothing': 0.0,
    'schedule.name': 'cosine',
    'schedule.drops': (),
    'schedule.warmup_epochs': 1.0,
  },
  small={
    'cifar10': {
      'num_epochs': 3.0,
      'data.crop_size': 32,
      'data.pad': 4,
      'schedule.warmup_epochs': 0.5,
    }
  },
  pictures={'num_epochs': 40.0},
  measure=measure,
  report=report,
)

if __name__ == '__main__':
  program.run(EXPERIMENT)
