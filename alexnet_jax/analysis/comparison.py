"""Runs side by side: what they reached, and where their configs differ."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax

from alexnet_jax import rows as rows_lib
from alexnet_jax import tables, train_state, workdir

_HEADER = (
  'run',
  'epoch',
  'step',
  'top-1 error',
  'top-5 error',
  'loss',
  'training top-1 error',
  'training loss',
  'parameters',
)
_CAPTION = (
  'Errors and losses are of the last validation, in brackets the least of any; '
  'of training, means since the row before, as trained on.'
)


def labels(paths: Iterable[pathlib.Path]) -> dict[str, pathlib.Path]:
  """Runs, each once, by the part of its path that tells it from the others."""
  absolute = [pathlib.Path(os.path.abspath(path)) for path in paths]
  common = os.path.commonpath([path.parent for path in absolute])
  return {str(path.relative_to(common)): path for path in absolute}


def markdown(workdirs: Mapping[str, pathlib.Path]) -> str:
  """A table of errors, and one of the fields that are not the same in all.

  Args:
    workdirs: of runs, by name.

  Raises:
    UserError: where one holds no run, or has no metrics yet.
  """
  fields = [workdir.fields_of_effect(path) for path in workdirs.values()]
  results = [[name, *_results(path)] for name, path in workdirs.items()]
  parts = [tables.markdown(_HEADER, results), _CAPTION, 'What differs:']
  differences = list(_differences(fields))
  if differences:
    parts.append(tables.markdown(('field', *workdirs), differences))
  else:
    parts[-1] += ' nothing.'
  return '\n\n'.join(parts) + '\n'


def _results(path: pathlib.Path) -> list[str]:
  rows = rows_lib.read(path)
  trained, validated = (
    [row for row in rows if row['split'] == split]
    for split in ('train', 'validation')
  )
  params = train_state.abstract_train_state(workdir.read_config(path)).params
  return [
    f'{rows[-1]["epoch"]:.4g}',
    f'{rows[-1]["step"]:,}',
    *(
      f'{_last(validated, metric)} {_least(validated, metric)}'
      for metric in ('top1_error', 'top5_error', 'loss')
    ),
    *(_last(trained, metric) for metric in ('top1_error', 'loss')),
    f'{sum(x.size for x in jax.tree.leaves(params)):,}',
  ]


def _last(rows: Sequence[Mapping], metric: str) -> str:
  return f'{rows[-1][metric]:.4f}' if rows else ''


def _least(rows: Sequence[Mapping], metric: str) -> str:
  return f'({min(row[metric] for row in rows):.4f})' if rows else ''


def _differences(
  configs: Sequence[Mapping[str, object]],
) -> Iterator[list[str]]:
  """Rows of a field and its value in each config, '' where there is none."""
  for field in sorted(set().union(*configs)):
    values = [repr(c[field]) if field in c else '' for c in configs]
    if len(set(values)) > 1:
      yield [field, *values]
