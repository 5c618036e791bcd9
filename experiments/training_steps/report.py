"""What came out: JSON for programs, tables and charts for people."""

import json
import pathlib
import re
import statistics

import ml_collections
from matplotlib import figure

from alexnet_jax import tables
from experiments.benchmarking import busy, machine
from experiments.training_steps import contenders, cost_model, worker

_BATCHES = (128, 256, 512, 1024)


def update(output: pathlib.Path, name: str, section: dict) -> dict:
  """Puts a section among those measured before; returns all of them.

  Writes results.json, results.md and the charts.
  """
  output.mkdir(parents=True, exist_ok=True)
  path = output / 'results.json'
  results = json.loads(path.read_text()) if path.exists() else {}
  results[name] = section
  order = [*contenders.SECTIONS, 'start', 'accelerator']
  results = {key: results[key] for key in order if key in results}
  path.write_text(json.dumps(results, indent=2) + '\n')
  sections = [section_markdown(key, results[key]) for key in results]
  text = '\n'.join([_heading(section), *sections])
  (output / 'results.md').write_text(text)
  if 'lrn' in results:
    _draw_rates(results['lrn'], output / 'rates.png')
  if 'scaling' in results:
    _draw_scaling(results['scaling'], output / 'scaling.png')
  return results


def _heading(section: dict) -> str:
  heading = machine.heading('Training step', section['environment'])
  return f"""{heading}
The command above made the newest measurement; every section names its commit
and settings, results.json has the rest. Rates of one section compare, those of
two do not: machines have slow hours. Images/s are medians of the rounds, least
and most in brackets. Ratios are medians of the rounds' ratios to the first row
of those that took turns.
"""


def section_markdown(name: str, section: dict) -> str:
  """A section as Markdown."""
  if name == 'start':
    body = _start_table(section['rows'])
  elif name == 'accelerator':
    body = _accelerator_table(section['rows'])
  elif name.startswith('layers'):
    body = _layer_table(section)
  else:
    body = _rate_table(name, section)
  title = 'From process start to first step'
  if name in contenders.SECTIONS:
    title = contenders.SECTIONS[name].title
  elif name == 'accelerator':
    title = f'On paper: AlexNet on {cost_model.H100.name}'
  return f'## {title}\n\n{body}\n{_conditions(section)}\n'


def _conditions(section: dict) -> str:
  settings = section['settings']
  text = (
    f'Commit {section["environment"]["git_commit"]}; batches of '
    f'{settings["batch_size"]} where nothing else is said, '
    f'{settings["rounds"]} rounds of at least {settings["seconds"]} s, seed '
    f'{settings["seed"]}.'
  )
  if section['environment'].get('gpu'):
    text += " Memory is the GPU's; float32 products are TF32, for all alike."
  measured = [row for row in section['rows'] if 'others' in row]
  if not measured:
    return text
  return f'{text} {_versions(measured)}. {busy.disturbance(measured)}'


def _versions(rows: list[dict]) -> str:
  """Of what the contenders are made of."""
  pairs = [pair for row in rows for pair in row['versions'].items()]
  return ', '.join(f'{name} {version}' for name, version in sorted(set(pairs)))


def _table(head: list[str], rows: list[list[str]]) -> str:
  return tables.markdown(head, rows) + '\n'


def _find(rows: list[dict], name: str, what: str) -> dict:
  found = [r for r in rows if (r['name'], r['what']) == (name, what)]
  return found[0] if found else {}


def _number(x: float) -> str:
  return f'{x:,.0f}' if x >= 100 else f'{x:.1f}'


def _cell(row: dict) -> str:
  if 'median' not in row:
    return row.get('status', '')
  median, low, high = (_number(row[key]) for key in ('median', 'min', 'max'))
  return f'{median} ({low}-{high})'


def ratio(row: dict, other: dict) -> float | None:
  """Median of the rounds' ratios: how many times `other` fits into `row`."""
  if 'rates' not in row or 'rates' not in other:
    return None
  pairs = zip(row['rates'], other['rates'], strict=True)
  return statistics.median(a / b for a, b in pairs)


def _ratio_cell(row: dict, other: dict) -> str:
  value = ratio(row, other)
  return '' if value is None else f'{value:.2f}'


def _rate_table(name: str, section: dict) -> str:
  rows, groups = section['rows'], {}
  for row in rows:
    groups.setdefault(row.get('group', 0), []).append(row)
  whats = {row['what'] for row in rows}
  kinds = [kind for kind in ('train', 'evaluate') if kind in whats]
  head = ['']
  for kind in kinds:
    head += [f'{kind}, images/s', 'ratio']
  lines = [line for group in groups.values() for line in _lines(group, kinds)]
  text = _table([*head, 'peak memory, GiB'], lines)
  product = _find(rows, contenders.PRODUCT, 'train')
  if 'median' not in product:
    return text
  return text + _share(name, rows, rows[0]['name'], product)


def _lines(rows: list[dict], kinds: list[str]) -> list[list[str]]:
  """A line for each contender of a group; the first is what others are to."""
  lines, first = [], rows[0]['name']
  names = dict.fromkeys(row['name'] for row in rows)
  names.pop(contenders.PRODUCT, None)
  for name in names:
    line = [name]
    for kind in kinds:
      row = _find(rows, name, kind)
      line += [_cell(row), _ratio_cell(row, _find(rows, first, kind))]
    memory = _find(rows, name, kinds[0]).get('peak_memory_gib')
    lines.append([*line, '' if memory is None else f'{memory:.1f}'])
  return lines


def _share(name: str, rows: list[dict], first: str, product: dict) -> str:
  """How much of the machine's rate of products a step reaches."""
  config = contenders.CONFIGS[contenders.SECTIONS[name].config].get_config()
  operations = {
    'train': cost_model.train_operations(config),
    'evaluate': cost_model.forward_operations(config),
  }
  limit = product['median'] * worker.product_operations() / 1e9
  parts = []
  for kind, count in operations.items():
    value = ratio(_find(rows, first, kind), product)
    if value is not None:
      share = 100 * value * count / worker.product_operations()
      parts.append(
        f'{share:.0f} % in {kind} ({count / 1e9:.4g} GFLOP an image)'
      )
  return (
    f'\n{first} reaches, of the {limit:,.0f} GFLOP/s of a large matrix '
    f'product: {", ".join(parts)}.\n'
  )


def _layer_table(section: dict) -> str:
  """Milliseconds of a batch, forward and backward, for each contender."""
  rows = [row for row in section['rows'] if 'median' in row]
  batch = section['settings']['batch_size']
  names = list(dict.fromkeys(r['name'] for r in rows))
  layers = dict.fromkeys(r['what'].split()[0] for r in rows)
  head = ['ms a batch']
  for name in names:
    head += [f'{name}: forward', 'backward']
  lines, totals = [], [0.0] * (2 * len(names))
  for layer in layers:
    times = []
    for name in names:
      forward, both = (
        1e3 * batch / _find(rows, name, f'{layer} {kind}')['median']
        for kind in ('forward', 'both')
      )
      times += [forward, both - forward]
    totals = [a + b for a, b in zip(totals, times, strict=True)]
    lines.append([layer, *(f'{x:,.0f}' for x in times)])
  lines.append(['sum', *(f'{x:,.0f}' for x in totals)])
  return _table(head, lines) + (
    '\nEach layer with its activation, norm, pool and dropout, compiled by '
    'itself; backward is the difference between both passes and the forward '
    'one. Update and loss are not part of it.\n'
  )


def _start_table(rows: list[dict]) -> str:
  stages = list(rows[0]['seconds'])
  head = ['seconds', *(f'{row["cache"]} cache' for row in rows)]
  lines = [
    [stage, *(f'{row["seconds"][stage]:.1f}' for row in rows)]
    for stage in stages
  ]
  until_step, compiling = [], []
  for row in rows:
    seconds = dict(row['seconds'])
    second_step = seconds.pop('second step')
    until_step.append(sum(seconds.values()))
    compiling.append(seconds['trace, compile, first step'] - second_step)
  return _table(head, lines) + (
    f'\nTo the end of the first step: {_seconds(until_step)}. Tracing and '
    f'compiling the step (first step less second): {_seconds(compiling)}.\n'
  )


def _seconds(values: list[float]) -> str:
  return ', '.join(f'{x:.1f} s' for x in values)


def accelerator_rows(config: ml_collections.ConfigDict) -> list[dict]:
  """Bounds of one step by batch size and compute type."""
  return [
    {'batch_size': size, 'dtype': dtype}
    | cost_model.bounds(config, size, cost_model.H100, dtype)
    for dtype in cost_model.H100.operations
    for size in _BATCHES
  ]


def _accelerator_table(rows: list[dict]) -> str:
  head = ['type, batch', 'compute, ms', 'memory, ms', 'sum, ms', 'images/s']
  lines = [
    [
      f'{row["dtype"]}, {row["batch_size"]}',
      *(f'{row[k]:.2f}' for k in ('compute', 'memory', 'step')),
      f'{1e3 * row["batch_size"] / row["step"]:,.0f}',
    ]
    for row in rows
  ]
  return _table(head, lines) + (
    f'\nNot measured. Least times at the full rates of {cost_model.H100.name} '
    f'({cost_model.H100.source}): operations as counted, every map read and '
    'written once by each operation, nothing overlapped or kept in caches '
    '(experiments/training_steps/cost_model.py). Real kernels reach a part.\n'
  )


def _draw_rates(section: dict, path: pathlib.Path) -> None:
  """A bar for each contender's training."""
  rows = [
    row
    for row in section['rows']
    if row['what'] == 'train'
    and 'median' in row
    and row['name'] != contenders.PRODUCT
  ]
  rows.sort(key=lambda row: row['median'])
  chart = figure.Figure((8, 1 + 0.4 * len(rows)))
  axes = chart.add_subplot()
  medians = [row['median'] for row in rows]
  spread = [
    [row['median'] - row['min'] for row in rows],
    [row['max'] - row['median'] for row in rows],
  ]
  colors = [
    'tab:blue' if row['name'] == contenders.OURS else 'lightgray'
    for row in rows
  ]
  bars = axes.barh(
    [row['name'] for row in rows], medians, xerr=spread, color=colors
  )
  axes.bar_label(bars, [_number(x) for x in medians], padding=4)
  axes.spines[['top', 'right']].set_visible(False)
  axes.set_xlabel(
    'AlexNet with LRN, float32, images/s in training: median, least, most'
  )
  chart.savefig(path, dpi=150, bbox_inches='tight')


def _draw_scaling(section: dict, path: pathlib.Path) -> None:
  """Images/s and memory against batch size and devices."""
  chart = figure.Figure((10, 6))
  grid = chart.subplots(2, 2, sharex='col')
  ticks = [set(), set()]
  for name, points in _scaling_series(section['rows']).items():
    column = int(name.endswith('devices'))
    sizes = [size for size, _ in points]
    ticks[column].update(sizes)
    for line, key in enumerate(('median', 'peak_memory_gib')):
      values = [row[key] for _, row in points]
      label = name.partition(',')[0]
      axes = grid[line][column]
      axes.plot(sizes, values, marker='o', label=label, clip_on=False)
  batch = section['settings']['batch_size']
  labels = 'batch size', f'virtual devices on the same cores, batch {batch}'
  for axes, label, places in zip(grid[1], labels, ticks, strict=True):
    axes.set_xscale('log', base=2)
    axes.set_xticks(sorted(places), sorted(places))
    axes.set_xlabel(label)
  grid[0][0].set_ylabel('images/s')
  grid[1][0].set_ylabel('peak memory, GiB')
  grid[0][0].legend(frameon=False)
  for axes in grid.flat:
    axes.set_ylim(bottom=0)
    axes.spines[['top', 'right']].set_visible(False)
  chart.savefig(path, dpi=150, bbox_inches='tight')


def _scaling_series(rows: list[dict]) -> dict[str, list[tuple[int, dict]]]:
  """'<contender>, batch' or '<contender>, devices': (size, row) pairs."""
  series = {}
  for row in rows:
    if 'median' in row:
      name, _, size = row['name'].partition(', ')
      kind = 'devices' if 'device' in size else 'batch'
      number = int(re.search(r'\d+', size)[0])
      series.setdefault(f'{name}, {kind}', []).append((number, row))
  return series
