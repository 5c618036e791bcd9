r"""A sweep: every combination of some fields' values, with every seed.

    python -m experiments.sweep --config=configs/quickstart.py \
        --workdir=runs/sweep --vary=model.activation=relu,tanh \
        --vary=optimizer.learning_rate=.003,.01 --seeds=3

It ends with a table, a plot and the command of the best run. Differences are to
the first combination. The same command again skips the runs that are finished
and goes on with the rest. Values that have commas are written as in Python:

    --vary=schedule.drops='((7,.1),),((6,.1),(9,.1))'

Fields that are the same in all runs are given as to main.py, as in
--config.num_epochs=5. For --gpus, --sbatch and --results, see
experiments/sweeps/program.py.
"""

import ast
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, errors
from experiments.sweeps import program
from experiments.sweeps.experiment import Experiment, Variant

_FLAGS = flags.FLAGS


def variants(grid: Mapping[str, Sequence[object]]) -> dict[str, Variant]:
  """Returns a variant for each combination of values.

  Args:
    grid: Values of each field.

  Raises:
    UserError: If two variants are the same.
  """
  names = {field: field.rpartition('.')[2] for field in grid}
  if len(set(names.values())) < len(names):
    names = {field: field for field in grid}
  found = {}
  for values in itertools.product(*grid.values()):
    fields = dict(zip(grid, values, strict=True))
    name = ' '.join(f'{names[field]}={v}' for field, v in fields.items())
    if name in found:
      raise errors.UserError(
        f'--vary has the variant {name} twice; leave one of the values out.'
      )
    found[name or 'unchanged'] = Variant(fields)
  return found


def parse_grid(texts: Iterable[str]) -> dict[str, list[object]]:
  """Returns the values of each field of --vary.

  Args:
    texts: Values of the flag, as FIELD=VALUE,VALUE.
  """
  grid = {}
  for text in texts:
    field, equals, values = text.partition('=')
    if not equals:
      raise errors.UserError(
        f'--vary={text} has no values; write it as --vary=FIELD=VALUE,VALUE.'
      )
    grid.setdefault(field, []).extend(_parse_values(values))
  return grid


def _parse_values(text: str) -> Sequence[object]:
  try:
    return ast.literal_eval(f'({text},)')
  except (SyntaxError, ValueError):  # words, maybe among numbers
    words = text.split(',')
  if len(words) == 1:
    return words
  return [value for word in words for value in _parse_values(word)]


def _check_field(
  config: ml_collections.ConfigDict, name: str, values: Sequence[object]
) -> None:
  """Raises UserError if there is no such field, or a value does not fit."""
  if name == 'seed':
    raise errors.UserError(
      '--vary=seed would leave no pairs to compare; give --seeds.'
    )
  try:
    old = functools.reduce(getattr, name.split('.'), config)
  except AttributeError as error:
    raise errors.UserError(
      f'--vary={name}: {command_line.one_line(error)} (all fields are in '
      'alexnet_jax/config.py).'
    ) from error
  copy = config.copy_and_resolve_references()
  # As main.py reads them: `true` is True, and digits may be a text.
  parse = {bool: flags.BooleanParser().parse, str: str}.get(type(old))
  for value in values:
    try:
      fitting = parse(str(value)) if parse else value
      copy.update_from_flattened_dict({name: fitting})
    except (TypeError, ValueError) as error:
      raise errors.UserError(
        f'--vary={name}={value} is no value like {old!r}, which the config '
        'has; give another.'
      ) from error


def main(_) -> None:
  """Trains the grid."""
  flag = _FLAGS['config']
  if flag.value is None:
    raise errors.UserError('--config is missing; give a file of configs/.')
  grid = parse_grid(_FLAGS.vary)
  for field, values in grid.items():
    _check_field(flag.value, field, values)
  fixed = config_flags.get_override_values(flag)
  for field in fixed:
    if field == 'seed' or field in grid:
      raise errors.UserError(
        f'--config.{field}={fixed[field]} would undo --vary or --seeds; leave '
        'it out.'
      )
  path = config_flags.get_config_filename(flag)
  program.sweep(
    Experiment(
      'sweep',
      f'Variants of {path}.',
      path,
      variants(grid),
      overrides=fixed,
      data='',
    )
  )


def _define_flags() -> None:
  program.define_sweep_flags()
  config_flags.DEFINE_config_file(
    'config', help_string='A file of configs/, optionally with :DATA.'
  )
  flags.DEFINE_multi_string(
    'vary', [], 'FIELD=VALUE,VALUE: values of a field of the config.'
  )


if __name__ == '__main__':
  command_line.run(main, _define_flags)
