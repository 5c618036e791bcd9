"""Times AlexNet's convolutions alone, against PyTorch's (oneDNN's on a CPU).

    python -m experiments.benchmarks.convolutions --torch_python=PYTHON

Each layer's forward pass, the gradient of its inputs and that of its filters
are programs of their own, in float32. They take turns as those of
`experiments.benchmarks.step` do. Conv1 has no gradient of its inputs, which are
pixels.
"""

import dataclasses
import json
import pathlib
import sys

from absl import flags

from alexnet_jax import command_line
from alexnet_jax.tools import tables
from experiments.benchmarks import contest, machine, step

_DIRECTIONS = ('forward', 'gradient of inputs', 'gradient of filters')


@dataclasses.dataclass(frozen=True)
class Layer:
  """A convolution of two towers (paper section 3.5).

  Attributes:
    side: Pixels of a side of the input.
    channels: Channels of an input.
    features: Filters of a tower.
    kernel: Side of the filters.
    stride: Pixels between their places.
    padding: Zeros (top and left, bottom and right).
    shared: Whether both towers read the same input.
  """

  side: int
  channels: int
  features: int
  kernel: int
  stride: int = 1
  padding: tuple[int, int] = (1, 1)
  shared: bool = False


_LAYERS = {
  'conv1': Layer(224, 3, 48, 11, 4, (0, 3), shared=True),
  'conv2': Layer(27, 48, 128, 5, padding=(2, 2)),
  'conv3': Layer(13, 256, 192, 3, shared=True),
  'conv4': Layer(13, 192, 192, 3),
  'conv5': Layer(13, 192, 128, 3),
}
_SETTINGS = ('batch_size', 'rounds', 'seconds', 'seed')


def main(_) -> None:
  """Measures all convolutions and writes their table."""
  values = flags.FLAGS
  contest.check_python('torch_python', values.torch_python)
  settings = {name: values[name].value for name in _SETTINGS}
  torch = [values.torch_python, 'convolutions_torch']
  rows = contest.run(
    [
      _contender('alexnet_jax', sys.executable, 'convolutions_jax'),
      _contender('PyTorch contiguous_format', *torch),
      _contender('PyTorch channels_last', *torch),
    ],
    settings['rounds'],
    settings['seconds'],
    settings['seed'],
  )
  results = {'about': machine.describe(), 'settings': settings, 'rows': rows}
  output = pathlib.Path(values.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  (output / 'results.md').write_text(_markdown(results))
  print(_markdown(results))


def _contender(name: str, python: str, module: str) -> contest.Contender:
  pairs = [(x, y) for x in _LAYERS for y in _DIRECTIONS]
  pairs.remove(('conv1', 'gradient of inputs'))
  job = {
    'programs': {
      f'{layer}, {direction}': (dataclasses.asdict(_LAYERS[layer]), direction)
      for layer, direction in pairs
    },
    'batch_size': flags.FLAGS.batch_size,
    'order': name.split()[-1],
  }
  command = [python, '-m', f'{__spec__.parent}.{module}', json.dumps(job)]
  return contest.Contender(name, command, {'GLIBC_TUNABLES': step.MALLOC})


def _markdown(results: dict) -> str:
  """Returns the text of results.md."""
  settings, rows = results['settings'], results['rows']
  times = {}  # by program and contender, in ms
  for row in rows:
    if 'median' in row:
      time = 1e3 * settings['batch_size'] / row['median']
      times.setdefault(row['what'], {})[row['name']] = time
  names = list(dict.fromkeys(row['name'] for row in rows))
  lines = [_line(what, own, names) for what, own in times.items()]
  total = {
    name: sum(own.get(name, 0) for own in times.values()) for name in names
  }
  lines.append(_line('sum', total, names))
  head = ['ms a batch', *names, 'fastest of PyTorch / ours']
  title = machine.heading('Convolutions of AlexNet', results['about'])
  return (
    f'{title}\n{tables.markdown(head, lines)}\n\nBatches of '
    f'{settings["batch_size"]}; medians of {settings["rounds"]} rounds of at '
    f'least {settings["seconds"]} s. {contest.disturbance(rows)}\n'
  )


def _line(what: str, times: dict[str, float], names: list[str]) -> list[str]:
  ours, *others = (times.get(name, 0.0) for name in names)
  cells = [f'{time:.0f}' for time in (ours, *others)]
  return [what, *cells, f'{min(others) / ours:.2f}']


def _define_flags() -> None:
  flags.DEFINE_string(
    'output', 'runs/benchmark_convolutions', 'Directory of the results.'
  )
  flags.DEFINE_integer('batch_size', 128, 'Images a batch.', lower_bound=1)
  flags.DEFINE_integer('rounds', 5, 'Measurements of each.', lower_bound=1)
  flags.DEFINE_float('seconds', 1, 'Least length of a measurement.')
  flags.DEFINE_string(
    'torch_python', sys.executable, 'Interpreter that has PyTorch.'
  )
  flags.DEFINE_integer('seed', 0, 'Seed of the orders.')


if __name__ == '__main__':
  command_line.run(main, _define_flags)
