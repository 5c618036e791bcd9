"""Times AlexNet's convolutions alone on CPUs, against PyTorch's (oneDNN's).

    python -m experiments.benchmarks.convolutions --torch_python=PYTHON

Each layer's forward pass, the gradient of its inputs and that of its filters
are programs of their own, in float32. They take turns as those of
`experiments.benchmarks.step` do. Conv1 has no gradient of its inputs, which are
pixels. PyTorch's conv1 gets images that are padded already.
"""

import collections
import dataclasses
import json
import pathlib
import sys

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.tools import tables
from experiments.benchmarks import contest, machine

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
  """Measures all convolutions and writes their table.

  Raises:
    UserError: If there is a GPU, where this would compare it with a CPU.
  """
  values = flags.FLAGS
  contest.check_python('torch_python', values.torch_python)
  if machine.has_gpu():
    raise errors.UserError(
      'JAX_PLATFORMS names no platform and JAX finds a GPU, but convolutions '
      'are compared on CPUs; set JAX_PLATFORMS=cpu.'
    )
  settings = {name: values[name].value for name in _SETTINGS}
  contenders = [_contender('alexnet_jax', sys.executable, 'convolutions_jax')]
  for order in ('contiguous_format', 'channels_last'):
    contenders.append(
      _contender(
        f'PyTorch {order}', values.torch_python, 'convolutions_torch', order
      )
    )
  rows = contest.run(contenders, values.rounds, values.seconds, values.seed)
  results = {'about': machine.describe(), 'settings': settings, 'rows': rows}
  output = pathlib.Path(values.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  text = _markdown(results)
  (output / 'results.md').write_text(text)
  print(text)


def _contender(
  name: str, python: str, module: str, order: str = ''
) -> contest.Contender:
  pairs = [(layer, what) for layer in _LAYERS for what in _DIRECTIONS]
  pairs.remove(('conv1', 'gradient of inputs'))
  programs = {
    f'{layer}, {what}': (dataclasses.asdict(_LAYERS[layer]), what)
    for layer, what in pairs
  }
  job = {'programs': programs, 'batch_size': flags.FLAGS.batch_size}
  job |= {'order': order} if order else {}
  command = [python, '-m', f'{__spec__.parent}.{module}', json.dumps(job)]
  return contest.Contender(name, command, {'GLIBC_TUNABLES': contest.MALLOC})


def _markdown(results: dict) -> str:
  """Returns the text of results.md."""
  settings, rows = results['settings'], results['rows']
  ours, *others = dict.fromkeys(row['name'] for row in rows)
  times = {  # ms, by program and contender
    (row['what'], row['name']): 1e3 * settings['batch_size'] / row['median']
    for row in rows
    if 'rates' in row
  }
  totals = collections.Counter()
  for (_, name), time in times.items():
    totals['sum', name] += time
  lines = [
    _line(what, ours, others, times | totals)
    for what in [*dict.fromkeys(what for what, _ in times), 'sum']
  ]
  head = ['ms a batch', ours, *others, 'fastest of PyTorch / ours']
  return (
    f'{machine.heading("Convolutions of AlexNet", results["about"])}\n'
    f'{tables.markdown(head, lines)}\n\n{_conditions(rows, settings)}\n'
  )


def _line(what: str, ours: str, others: list[str], times: dict) -> list[str]:
  cells = [
    f'{times[what, name]:.1f}' if (what, name) in times else ''
    for name in (ours, *others)
  ]
  theirs = [times[what, name] for name in others if (what, name) in times]
  ratio = ''
  if theirs and (what, ours) in times:
    ratio = f'{min(theirs) / times[what, ours]:.2f}'
  return [what, *cells, ratio]


def _conditions(rows: list[dict], settings: dict) -> str:
  failures = [
    f'{row["name"]}: {contest.why_missing(row)}. '
    for row in rows
    if 'status' in row
  ]
  return (
    f'Batches of {settings["batch_size"]}; medians of {settings["rounds"]} '
    f'rounds of at least {settings["seconds"]} s. {contest.versions(rows)}. '
    f'{"".join(failures)}{contest.disturbance(rows)}'
  )


def _define_flags() -> None:
  contest.define_flags('runs/benchmark_convolutions', 1, 'PyTorch')
  flags.DEFINE_integer('batch_size', 128, 'Images a batch.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Seed of the orders.')


if __name__ == '__main__':
  command_line.run(main, _define_flags)
