"""What came out: JSON for programs, a table and a chart for people."""

import json
import pathlib

from matplotlib import figure

from alexnet_jax import tables
from experiments.benchmarking import busy, machine
from experiments.input_loaders import contenders

_COLOR = 'tab:blue'


def write(results: dict, output: pathlib.Path) -> None:
  """Writes results.json, results.md and loaders.png."""
  output.mkdir(parents=True, exist_ok=True)
  (output / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  (output / 'results.md').write_text(markdown(results))
  if results.get('loaders'):
    _draw(results['loaders'], output / 'loaders.png')


def markdown(results: dict) -> str:
  """All results as tables."""
  sections = [_heading(results)]
  if 'loaders' in results:
    sections.append(_loader_table(results['loaders']))
    sections.append(_decoder_table(results['decoders']))
  if 'training' in results:
    sections.append(_training_table(results['training']))
  return '\n'.join(sections)


def _heading(results: dict) -> str:
  settings = results['settings']
  heading = machine.heading('Training input', results['environment'])
  return f"""{heading}
Images/s: the median of {settings['rounds']} rounds, least and most in brackets;
batches of {settings['batch_size']}, seed {settings['seed']}. Versions of each
loader's libraries are in results.json.
"""


def _loader_table(rows: list[dict]) -> str:
  counts = _worker_counts(rows)
  head = [_workers(count) for count in counts]
  cells = []
  for name in _ranking(rows):
    rates = [_cell(_find(rows, name, count)) for count in counts]
    cells.append([name, contenders.CONTENDERS[name].reads, *rates])
  align = 'll' + 'r' * len(counts)
  table = tables.markdown(('loader', 'reads', *head), cells, align)
  return f'## Loaders\n\n{table}\n\n{busy.disturbance(rows)}\n'


def _decoder_table(rows: list[dict]) -> str:
  cells = []
  for row in rows:
    found = ['not installed', '']
    if 'max' in row:
      found = [str(row['max']), f'{row["mean"]:.3f}']
    cells.append([row['name'], *found])
  table = tables.markdown(('decoder', 'largest', 'mean'), cells)
  title = '## Decoders: difference to the pixels of alexnet_jax, 0 to 255'
  return f'{title}\n\n{table}\n'


def _training_table(training: dict) -> str:
  parts = {what: training[what] for what in ('input', 'step', 'both')}
  cells = [(what, _cell(part)) for what, part in parts.items()]
  return f"""## Training on {', '.join(training['devices'])}

{tables.markdown(('what', 'images/s'), cells)}

Input costs {training['cost_percent']:.1f} % of the step.

{busy.disturbance(list(parts.values()))}
"""


def _workers(count: int) -> str:
  return f'{count} worker{"s" if count > 1 else ""}'


def _cell(row: dict) -> str:
  if 'median' not in row:
    return row['status']
  return f'{row["median"]:,.0f} ({row["min"]:,.0f}-{row["max"]:,.0f})'


def _worker_counts(rows: list[dict]) -> list[int]:
  return sorted({row['workers'] for row in rows})


def _find(rows: list[dict], name: str, workers: int) -> dict:
  return next(
    row for row in rows if (row['name'], row['workers']) == (name, workers)
  )


def _ranking(rows: list[dict]) -> list[str]:
  """Names, the fastest with the most workers first and ceilings last."""
  most = max(row['workers'] for row in rows)

  def key(row: dict) -> tuple[bool, float]:
    is_ceiling = contenders.CONTENDERS[row['name']].is_ceiling
    return is_ceiling, -row.get('median', 0)

  rows = [row for row in rows if row['workers'] == most]
  return [row['name'] for row in sorted(rows, key=key)]


def _draw(rows: list[dict], path: pathlib.Path) -> None:
  """A horizontal bar for each loader and number of workers.

  Ceilings stay in the table: copying alone would dwarf everything else.
  """
  rows = [
    row
    for row in rows
    if 'median' in row and not contenders.CONTENDERS[row['name']].is_ceiling
  ]
  if not rows:
    return
  names, counts = _ranking(rows), _worker_counts(rows)
  chart = figure.Figure((8, 1 + 0.26 * len(names) * len(counts)))
  axes = chart.add_subplot()
  for turn, count in enumerate(counts):
    bars = [_find(rows, name, count) for name in names]
    _draw_bars(axes, bars, turn, len(counts))
  axes.set_yticks(range(len(names)), names)
  axes.invert_yaxis()
  axes.spines[['top', 'right']].set_visible(False)
  axes.set_xlabel('images/s: median, least and most of the rounds')
  axes.legend(frameon=False, loc='lower right')
  chart.savefig(path, dpi=150, bbox_inches='tight')


def _draw_bars(axes, bars: list[dict], turn: int, turns: int) -> None:
  """One number of workers; more of them are drawn darker."""
  height = 0.8 / turns
  places = [i + (turn - (turns - 1) / 2) * height for i in range(len(bars))]
  medians = [bar['median'] for bar in bars]
  spread = [
    [bar['median'] - bar['min'] for bar in bars],
    [bar['max'] - bar['median'] for bar in bars],
  ]
  drawn = axes.barh(
    places,
    medians,
    height,
    xerr=spread,
    color=_COLOR,
    alpha=(turn + 1) / turns,
    ecolor='black',
    label=_workers(bars[0]['workers']),
  )
  axes.bar_label(drawn, [f'{x:,.0f}' for x in medians], padding=4, size=8)
