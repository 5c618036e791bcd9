"""Draws learning curves of one run or of several.

    python -m alexnet_jax.tools.curves --workdir=runs/alexnet
    python -m alexnet_jax.tools.curves runs/relu runs/tanh --output=both.png

For several runs, it prints their last and best errors and the fields in which
their configs differ, as tables in Markdown. No checkpoint is needed.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alexnet_jax import command_line, errors, paths
from alexnet_jax.tools import figures, tables
from alexnet_jax.tools import flags as tool_flags
from alexnet_jax.workdir import files, metrics_file

_STYLES = {
  'train': {'linestyle': (0, (4, 1.5)), 'linewidth': 1.0},
  'validation': {'linestyle': '-', 'linewidth': 1.8},
}
_LABELS = {'top1_error': 'top-1 error', 'loss': 'loss'}
# The legend of more runs than this stands beside the panels.
_MAX_INSIDE = 4
# Head of a column, split, metric.
_COLUMNS = (
  ('top-1 error', 'validation', 'top1_error'),
  ('top-5 error', 'validation', 'top5_error'),
  ('loss', 'validation', 'loss'),
  ('training top-1 error', 'train', 'top1_error'),
  ('training loss', 'train', 'loss'),
)
_CAPTION = (
  'Last values, in brackets the lowest. Those of training are means since the '
  'row before, on augmented images and with dropout.'
)


def name_runs(names: Iterable[str]) -> dict[str, pathlib.Path]:
  """Returns the paths of runs by the part that tells each from the others."""
  absolute = [paths.of_run('workdir', name) for name in names]
  common = os.path.commonpath([path.parent for path in absolute])
  return {str(path.relative_to(common)): path for path in absolute}


def draw(workdirs: Mapping[str, pathlib.Path]) -> figures.Figure:
  """Draws error and loss by epoch, with a colour for each run.

  Training is dashed: means since the row before, on augmented images and with
  dropout. Validation is solid. For one run with a schedule of given epochs,
  dotted lines mark where its rates drop.

  Args:
    workdirs: Directories of runs, by their names in the legend.

  Raises:
    UserError: If a run has no metrics yet.
  """
  rows = [_read(workdir) for workdir in workdirs.values()]
  colours = _colours(len(rows))
  chart = figures.create(*_size(len(rows)), layout='constrained')
  panels = dict(zip(_LABELS, chart.subplots(1, len(_LABELS)), strict=True))
  _add_legend_lines(panels['loss'], list(workdirs), colours)
  for metric, panel in panels.items():
    for own, colour in zip(rows, colours, strict=True):
      _plot(panel, own, metric, colour)
    if len(rows) == 1:
      _mark_drops(panel, *workdirs.values())
    _finish(panel, metric)
  lines, labels = panels['loss'].get_legend_handles_labels()
  if len(rows) > _MAX_INSIDE:
    chart.legend(lines, labels, frameon=False, loc='outside right upper')
  else:
    panels['loss'].legend(lines, labels, frameon=False)
  return chart


def _read(workdir: pathlib.Path) -> list[metrics_file.Row]:
  """Returns the rows of a run, with all numbers that are drawn or compared."""
  rows = metrics_file.read(workdir)
  names = ('epoch', *dict.fromkeys(metric for *_, metric in _COLUMNS))
  metrics_file.check_numbers(workdir, rows, names)
  return rows


def _size(num_runs: int) -> tuple[float, float]:
  if num_runs <= _MAX_INSIDE:
    return 8.8, 3.4
  return 11.2, max(3.4, 0.23 * (num_runs + 3))


def _colours(count: int) -> list[Any]:
  from matplotlib import color_sequences

  colours = color_sequences['tab10' if count <= 10 else 'tab20']
  return [colours[i % len(colours)] for i in range(count)]


def _add_legend_lines(panel: Any, names: list[str], colours: list[Any]) -> None:
  for split, style in _STYLES.items():
    label = 'training' if split == 'train' else split
    panel.plot([], [], color='0.3', label=label, **style)
  if len(names) > 1:
    for name, colour in zip(names, colours, strict=True):
      # Matplotlib leaves out a label that starts with an underscore.
      label = f' {name}' if name.startswith('_') else name
      panel.plot([], [], color=colour, linewidth=3, label=label)


def _plot(panel: Any, rows: list[dict], metric: str, colour: Any) -> None:
  for split, style in _STYLES.items():
    own = [row for row in rows if row['split'] == split]
    epochs, values = [[row[key] for row in own] for key in ('epoch', metric)]
    marker = 'o' if len(own) == 1 else None
    panel.plot(epochs, values, color=colour, marker=marker, **style)


def _mark_drops(panel: Any, workdir: pathlib.Path) -> None:
  schedule = json.loads((workdir / 'config.json').read_text())['schedule']
  if schedule['name'] != 'epochs':
    return
  _, end = panel.get_xlim()
  style = {'color': figures.GREY, 'linestyle': ':', 'linewidth': 1}
  for i, (epoch, _) in enumerate(schedule['drops']):
    if epoch < end:
      panel.axvline(epoch, label='' if i else 'rate drops', **style)


def _finish(panel: Any, metric: str) -> None:
  panel.set(xlabel='epoch', ylabel=_LABELS[metric], ylim=(0, None))
  panel.set_xlim(left=0)
  if metric == 'top1_error':
    panel.yaxis.set_major_formatter(lambda error, _: f'{100 * error:g}%')
  panel.grid(color='0.92')
  panel.spines[['top', 'right']].set_visible(False)


def compare(workdirs: Mapping[str, pathlib.Path]) -> str:
  """Returns a table of errors and one of the configs' fields that differ.

  Args:
    workdirs: Directories of runs, by name.

  Raises:
    UserError: If one holds no run, or has no metrics yet.
  """
  configs = [files.fields_of_effect(path) for path in workdirs.values()]
  head = ('run', 'epoch', *(name for name, *_ in _COLUMNS))
  errors_of_runs = [
    (name, *_errors(_read(path))) for name, path in workdirs.items()
  ]
  differences = list(_differences(configs))
  text = f'{tables.markdown(head, errors_of_runs)}\n\n{_CAPTION}\n\n'
  if not differences:
    return f'{text}The configs do not differ.\n'
  fields = tables.markdown(('field', *workdirs), differences)
  return f'{text}Fields that differ:\n\n{fields}\n'


def _errors(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  yield f'{rows[-1]["epoch"]:.4g}'
  for _, split, metric in _COLUMNS:
    values = [row[metric] for row in rows if row['split'] == split]
    yield f'{values[-1]:.4f} ({min(values):.4f})' if values else ''


def _differences(
  configs: Sequence[Mapping[str, object]],
) -> Iterator[list[str]]:
  """Yields a field and its value in each config, '' where it is missing."""
  for field in sorted(set().union(*configs)):
    values = [repr(c[field]) if field in c else '' for c in configs]
    if len(set(values)) > 1:
      yield [field, *values]


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_picture('curves.png')


def main(arguments: list[str]) -> None:
  """Draws the runs that the flags and arguments name."""
  given = tool_flags.FLAGS
  names = [given.workdir] * bool(given.workdir) + arguments
  if not names:
    raise errors.UserError(
      'no runs; give --workdir=DIR, or several as DIR DIR.'
    )
  workdirs = name_runs(names)
  figures.write(draw(workdirs), given.output)
  if len(workdirs) > 1:
    print(compare(workdirs))


if __name__ == '__main__':
  command_line.run(main, define_flags, takes_arguments=True)
