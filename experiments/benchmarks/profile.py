r"""Prints where the time of the training step goes, operation by operation.

    python -m experiments.benchmarks.profile --config=configs/alexnet.py \
        --config.model.omit=lrn

Random pictures stay on the device, as in `experiments.benchmarks.step`. Times
are those of XLA's operations in its profiler. On a CPU, operations run beside
one another, so that their sum is longer than the step. Bytes are those of an
operation's inputs and outputs, each counted once: what it must move at least,
unless it reads only a part of an input.
"""

import collections
import math
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping

import jax
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, parallel
from alexnet_jax.tools import tables
from experiments.benchmarks import step_jax, step_worker

_HEAD = ('operation', 'ms', 'share', 'MB', 'GB/s', 'of the network')
# `%name = f32[2,3]{1,0} opcode(%input, ...), ..., metadata={op_name="..."}`
_INSTRUCTION = re.compile(r'(?:ROOT )?%(\S+) = (.*?) [a-z][\w-]*\(([^)]*)\)')
_SHAPE = re.compile(r'\b([a-z]+)(\d*)\[([\d,]*)\]')


def bytes_moved(hlo: str) -> dict[str, int]:
  """Returns the bytes of inputs and outputs of each operation, by its name.

  Args:
    hlo: Text of a compiled program.
  """
  found = map(_INSTRUCTION.match, map(str.strip, hlo.splitlines()))
  parts = [instruction.groups() for instruction in found if instruction]
  sizes = {name: _bytes(shape) for name, shape, _ in parts}
  inputs = {
    name: set(re.findall(r'%([\w.-]+)', given)) for name, _, given in parts
  }
  return {
    name: size + sum(sizes.get(other, 0) for other in inputs[name])
    for name, size in sizes.items()
  }


def _bytes(shape: str) -> int:
  """Returns the bytes of a shape of HLO, or of a tuple of them."""
  arrays = _SHAPE.findall(shape)  # ('f', '32', '2,3'), or ('pred', '', '')
  return sum(
    int(bits or 8) // 8 * math.prod(map(int, re.findall(r'\d+', sides)))
    for _, bits, sides in arrays
  )


def _places(hlo: str) -> dict[str, str]:
  """Returns the part of our network that each operation was made of."""
  places = re.findall(r'%(\S+) = .*op_name="([^"]*)"', hlo)
  return {name: place.partition('/')[2] for name, place in places}


def _operations(trace: pathlib.Path) -> Iterator[tuple[str, float]]:
  """Yields the name and the nanoseconds of all operations of a trace."""
  (path,) = trace.rglob('*.xplane.pb')
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        name = dict(event.stats).get('hlo_op')
        if name == event.name:
          yield name, event.duration_ns


def _measure(
  step: step_jax.Step, steps: int
) -> tuple[float, Mapping[str, float], str]:
  """Returns seconds of a step, nanoseconds by operation, and the program."""
  lowered, (state, *others) = step.lower_train()
  program = lowered.compile(parallel.compiler_options(deterministic=False))
  state, _ = jax.block_until_ready(program(state, *others))
  taken = collections.Counter()
  with tempfile.TemporaryDirectory() as directory:
    with jax.profiler.trace(directory):
      start = time.perf_counter()
      for _ in range(steps):
        state, _ = jax.block_until_ready(program(state, *others))
      seconds = (time.perf_counter() - start) / steps
    for name, duration in _operations(pathlib.Path(directory)):
      taken[name] += duration / steps
  return seconds, taken, program.as_text()


def _table(taken: Mapping[str, float], hlo: str, count: int) -> str:
  """Returns a line for each of the operations that take longest."""
  sizes, places, whole = bytes_moved(hlo), _places(hlo), sum(taken.values())
  longest = sorted(taken, key=taken.get, reverse=True)[:count]
  return tables.markdown(
    _HEAD,
    [
      (
        name,
        f'{taken[name] / 1e6:.2f}',
        f'{taken[name] / whole:.1%}',
        f'{sizes.get(name, 0) / 1e6:,.1f}',
        f'{sizes.get(name, 0) / taken[name]:.1f}',
        places.get(name, ''),
      )
      for name in longest
    ],
    'lrrrrl',
  )


def main(_) -> None:
  """Prints the table of the config that the flags name."""
  values = flags.FLAGS
  step = step_jax.Step(values.config, step_worker.random_batch(values.config))
  seconds, taken, hlo = _measure(step, values.steps)
  print(_table(taken, hlo, values.operations))
  print(
    f'\nA step of {values.config.batch_size} images: {1e3 * seconds:.1f} ms; '
    f'all operations: {sum(taken.values()) / 1e6:.1f} ms.'
  )


def _define_flags() -> None:
  config_flags.DEFINE_config_file('config', None, 'File of configs/.')
  flags.DEFINE_integer('steps', 3, 'Steps to trace.', lower_bound=1)
  flags.DEFINE_integer('operations', 30, 'Lines of the table.', lower_bound=1)
  flags.mark_flag_as_required('config')


if __name__ == '__main__':
  command_line.run(main, _define_flags)
