"""alexnet_jax.tools.curves on hand-written metrics and configs."""

import json
import math
import subprocess
import sys

import pytest

from alexnet_jax import errors
from alexnet_jax.tools import curves, figures
from tests import tiny

ROWS = [
  # step, epoch, split, loss, top-1 error, top-5 error
  (10, 0.5, 'train', 3.0, 0.9, 0.8),
  (20, 1.0, 'validation', 1.25, 0.25, 0.125),
  (30, 1.5, 'train', 2.0, 0.75, 0.5),
  (2000, 100.0, 'validation', 1.5, 0.375, 0.0625),
]
KEYS = ('step', 'epoch', 'split', 'loss', 'top1_error', 'top5_error')


def _write(path, rows=ROWS, **fields):
  """Writes a run's directory; `fields` have __ for dots."""
  config = tiny.get_config('data')
  with config.unlocked():
    config.update_from_flattened_dict(
      {name.replace('__', '.'): value for name, value in fields.items()}
    )
  path.mkdir(parents=True)
  (path / 'config.json').write_text(config.to_json())
  lines = [json.dumps(dict(zip(KEYS, row, strict=True))) for row in rows]
  (path / 'metrics.jsonl').write_text('\n'.join([*lines, '{"step": 20']))
  return path


def _cells(text):
  """Returns the cells of each table, without its first column's header."""
  lines = [
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in text.splitlines()
    if line.startswith('|') and not line.startswith('| ---')
  ]
  second = [line[0] for line in lines].index('field')
  return lines[1:second], lines[second + 1 :]


def test_the_tool_draws_and_compares(tmp_path):
  _write(tmp_path / 'a')
  _write(
    tmp_path / 'b',
    ROWS[:1],
    seed=1,
    model__keep=0.25,
    keep_checkpoints=7,
    data__dir='elsewhere',
  )
  command = [sys.executable, '-m', 'alexnet_jax.tools.curves']
  command += [
    f'{tmp_path}/a',
    f'{tmp_path}/b',
    f'--output={tmp_path}/new/c.png',
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert (tmp_path / 'new/c.png').read_bytes().startswith(b'\x89PNG')
  results, differences = _cells(done.stdout)
  validated = ['0.3750 (0.2500)', '0.0625 (0.0625)', '1.5000 (1.2500)']
  assert results == [
    ['a', '100', *validated, '0.7500 (0.7500)', '2.0000 (2.0000)'],
    ['b', '0.5', '', '', '', '0.9000 (0.9000)', '3.0000 (3.0000)'],
  ]
  # Places and checkpoints have no effect on results.
  assert differences == [['model.keep', '0.5', '0.25'], ['seed', '0', '1']]


def test_lines_are_the_rows(tmp_path):
  workdirs = {'a': _write(tmp_path / 'a', schedule__drops=((1.0, 0.1),))}
  panels = curves.draw(workdirs).axes
  lines = [tuple(map(list, line.get_data())) for line in panels[0].lines]
  assert ([0.5, 1.5], [0.9, 0.75]) in lines
  assert ([1.0, 100.0], [0.25, 0.375]) in lines
  assert [1.0, 1.0] in [x for x, _ in lines]  # where the rate drops
  names = [text.get_text() for text in panels[1].get_legend().get_texts()]
  assert names == ['training', 'validation', 'rate drops']


def test_runs_of_one_config_differ_in_nothing(tmp_path):
  runs = {name: _write(tmp_path / name) for name in ('a', 'b')}
  assert curves.compare(runs).endswith('The configs do not differ.\n')


@pytest.mark.parametrize(
  'paths, expected',
  [
    (['/runs/a'], ['a']),
    (['/runs/a', '/runs/b/', '/runs/a'], ['a', 'b']),
    (['/x/lrn/with/0', '/x/lrn/without/0'], ['with/0', 'without/0']),
    (['/x/a', '/x/a/b'], ['a', 'a/b']),
    (['/x/a', '/y/a'], ['x/a', 'y/a']),
  ],
)
def test_names_of_runs_are_short(paths, expected):
  assert list(curves.name_runs(paths)) == expected


def test_mistakes_are_sentences(tmp_path):
  with pytest.raises(errors.UserError, match='missing holds no run'):
    curves.compare({'a': tmp_path / 'missing'})
  empty = _write(tmp_path / 'empty', rows=[])
  with pytest.raises(errors.UserError, match='empty has no metrics yet'):
    curves.draw({'a': empty})


@pytest.mark.parametrize('value', [None, '0.5', True, math.nan, math.inf])
@pytest.mark.parametrize('name', ['epoch', 'loss', 'top1_error', 'top5_error'])
def test_numbers_that_are_none_are_named(tmp_path, name, value):
  workdir = _write(tmp_path / 'run')
  row = dict(zip(KEYS, ROWS[0], strict=True)) | {name: value}
  (workdir / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  for tool in (curves.draw, curves.compare):
    with pytest.raises(errors.UserError, match=f'{name}=.* at step 10'):
      tool({'run': workdir})


HOSTILE = ['$\\frac$', 'a$b_{c$', '_hidden', 'two\nlines', '^\\%#&~{}', '$x$']


def test_any_name_of_a_run_is_drawn_as_it_is(tmp_path):
  workdir = _write(tmp_path / 'run')
  chart = curves.draw(dict.fromkeys(HOSTILE, workdir))
  figures.write(chart, str(tmp_path / 'chart.png'))  # raises for a bad formula
  shown = [text.get_text() for text in chart.legends[0].get_texts()]
  assert [name.strip() for name in shown[2:]] == HOSTILE
  assert not any(text.get_parse_math() for text in chart.legends[0].get_texts())
