"""Learning curves of one run, or of several (paper, Figure 1)."""

import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping

import matplotlib
from matplotlib import axes, figure, ticker

from alexnet_jax import rows as rows_lib
from alexnet_jax.figures import picture

_TRAIN, _VALIDATION = 'train', 'validation'
_STYLES = {
  _TRAIN: {'linestyle': (0, (4, 1.5)), 'linewidth': 1.0},
  _VALIDATION: {'linestyle': '-', 'linewidth': 1.8},
}
_LABELS = {'top1_error': 'top-1 error', 'loss': 'loss'}
# Of more runs than this, the names stand beside the panels.
_INSIDE = 4


def draw(
  workdirs: Mapping[str, pathlib.Path], *, training_error_only: bool = False
) -> figure.Figure:
  """Error and loss by epoch, a colour a run.

  Training is dashed (means over the images since the row before, as they were
  trained on: augmented, with dropout), validation solid. Where one run has a
  schedule of given epochs, dotted lines say when its rates change.

  Args:
    workdirs: of runs, by the name that the legend gives.
    training_error_only: as Figure 1.

  Raises:
    UserError: where a run has no metrics yet.
  """
  metrics = ('top1_error',) if training_error_only else tuple(_LABELS)
  splits = (_TRAIN,) if training_error_only else (_TRAIN, _VALIDATION)
  size = _size(len(metrics), len(workdirs))
  chart = figure.Figure(size, layout='constrained')
  panels = chart.subplots(1, len(metrics), squeeze=False)[0]
  colours = _colours(len(workdirs))
  for workdir, colour in zip(workdirs.values(), colours, strict=False):
    rows = rows_lib.read(workdir)
    for panel, metric in zip(panels, metrics, strict=True):
      for split in splits:
        _plot(panel, rows, split, metric, colour)
      if len(workdirs) == 1:
        _mark_rates(panel, workdir)
  for panel, metric in zip(panels, metrics, strict=True):
    _finish(panel, metric)
  _legend(panels[-1], list(workdirs), splits)
  return chart


def _size(num_panels: int, num_runs: int) -> tuple[float, float]:
  """Of a figure, in inches."""
  if num_runs <= _INSIDE:
    return 4.4 * num_panels, 3.4
  return 4.4 * num_panels + 2.4, max(3.4, 0.23 * (num_runs + 3))


def _colours(num_runs: int) -> Iterator[str]:
  name = 'tab10' if num_runs <= 10 else 'tab20'
  return itertools.cycle(matplotlib.color_sequences[name])


def _plot(
  panel: axes.Axes,
  rows: list[dict[str, object]],
  split: str,
  metric: str,
  colour: str,
) -> None:
  own = [row for row in rows if row['split'] == split]
  style = dict(_STYLES[split])
  if len(own) == 1:
    style['marker'] = 'o'
  epochs, values = [[row[key] for row in own] for key in ('epoch', metric)]
  panel.plot(epochs, values, color=colour, **style)


def _mark_rates(panel: axes.Axes, workdir: pathlib.Path) -> None:
  schedule = json.loads((workdir / 'config.json').read_text())['schedule']
  if schedule['name'] != 'epochs':
    return
  _, end = panel.get_xlim()
  epochs = [epoch for epoch, _ in schedule['drops'] if epoch < end]
  for epoch in epochs:
    line = panel.axvline(epoch, color=picture.GREY, linestyle=':', linewidth=1)
    line.set_label('rate changes')


def _finish(panel: axes.Axes, metric: str) -> None:
  panel.set(xlabel='epoch', ylabel=_LABELS[metric], ylim=(0, None))
  panel.set_xlim(left=0)
  if metric == 'top1_error':
    panel.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=None))
  panel.grid(color='0.92')
  panel.spines[['top', 'right']].set_visible(False)


def _legend(
  panel: axes.Axes, names: list[str], splits: tuple[str, ...]
) -> None:
  lines, labels = [], []
  if len(splits) > 1:
    for split in splits:
      lines += panel.plot([], [], color='0.3', **_STYLES[split])
      labels.append({_TRAIN: 'training'}.get(split, split))
  if len(names) > 1:
    for name, colour in zip(names, _colours(len(names)), strict=False):
      lines += panel.plot([], [], color=colour, linewidth=3)
      labels.append(name)
  marks, texts = panel.get_legend_handles_labels()
  lines, labels = lines + marks[:1], labels + texts[:1]
  if len(names) > _INSIDE:
    panel.figure.legend(lines, labels, frameon=False, loc='outside right upper')
  elif lines:
    panel.legend(lines, labels, frameon=False)
