"""Comparisons of runs: hand-written metrics and configs."""

import json
import pathlib
import subprocess
import sys

import pytest

from alexnet_jax import errors
from alexnet_jax.analysis import comparison
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]
ROWS = [
  # step, epoch, split, loss, top-1 error, top-5 error
  (10, 0.5, 'train', 3.0, 0.9, 0.8),
  (20, 1.0, 'validation', 1.25, 0.25, 0.125),
  (30, 1.5, 'train', 2.0, 0.75, 0.5),
  (2000, 100.0, 'validation', 1.5, 0.375, 0.0625),
]
KEYS = ('step', 'epoch', 'split', 'loss', 'top1_error', 'top5_error')
# conv1 to conv5, fc6, fc7: two towers; fc8 (see tests/tiny.py).
PARAMETERS = (
  2
  * (
    (5 * 5 * 3 + 1) * 4
    + (5 * 5 * 4 + 1) * 6
    + (3 * 3 * 12 + 1) * 8
    + (3 * 3 * 8 + 1) * 8
    + (3 * 3 * 8 + 1) * 6
    + (2 * 2 * 12 + 1) * 16
    + (32 + 1) * 16
  )
  + (32 + 1) * 3
)


def _write(path, rows=ROWS, **fields):
  """A run's directory; `fields` by name, with __ for dots."""
  config = json.loads(tiny.get_config('data').to_json())
  for name, value in fields.items():
    *parents, last = name.split('__')
    section = config
    for parent in parents:
      section = section[parent]
    section[last] = value
  path.mkdir(parents=True)
  (path / 'config.json').write_text(json.dumps(config))
  lines = [json.dumps(dict(zip(KEYS, row, strict=True))) for row in rows]
  (path / 'metrics.jsonl').write_text('\n'.join([*lines, '{"step": 20']))
  return path


def _cells(text):
  """Of each line of each table, without headers."""
  tables, previous = [], ''
  for line in text.splitlines():
    if line.startswith('| ---'):
      tables.append([])
    elif line.startswith('|') and previous.startswith('|'):
      tables[-1].append([cell.strip() for cell in line.split('|')[1:-1]])
    previous = line
  return tables


def test_tables(tmp_path):
  runs = {
    'a': _write(tmp_path / 'a'),
    'b': _write(
      tmp_path / 'b',
      ROWS[:1],
      seed=1,
      model__keep=0.25,
      optimizer__unknown=True,
      keep_checkpoints=7,
      data__dir='elsewhere',
    ),
  }
  results, differences = _cells(comparison.markdown(runs))
  validated = ['0.3750 (0.2500)', '0.0625 (0.0625)', '1.5000 (1.2500)']
  count = f'{PARAMETERS:,}'
  assert results == [
    ['a', '100', '2,000', *validated, '0.7500', '2.0000', count],
    ['b', '0.5', '10', '', '', '', '0.9000', '3.0000', count],
  ]
  assert differences == [
    ['model.keep', '0.5', '0.25'],
    ['optimizer.unknown', '', 'True'],
    ['seed', '0', '1'],
  ]


def test_runs_of_one_config_differ_in_nothing(tmp_path):
  runs = {'a': _write(tmp_path / 'a'), 'b': _write(tmp_path / 'b')}
  text = comparison.markdown(runs)
  assert text.endswith('What differs: nothing.\n')
  assert len(_cells(text)) == 1


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
def test_labels_are_short(paths, expected):
  assert list(comparison.labels(map(pathlib.Path, paths))) == expected


def test_mistakes_are_sentences(tmp_path):
  with pytest.raises(errors.UserError, match='missing holds no run'):
    comparison.markdown({'a': tmp_path / 'missing'})
  empty = _write(tmp_path / 'empty', rows=[])
  with pytest.raises(errors.UserError, match='empty has no metrics yet'):
    comparison.markdown({'a': empty})


def test_command_writes_both(tmp_path):
  paths = [str(_write(tmp_path / name, seed=i)) for i, name in enumerate('ab')]
  command = [sys.executable, '-m', 'experiments.compare', *paths]
  done = subprocess.run(
    [*command, f'--output={tmp_path}/new/ab'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  text = (tmp_path / 'new/ab.md').read_text()
  assert done.stdout.startswith(text)
  assert _cells(text)[1] == [['seed', '0', '1']]
  assert (tmp_path / 'new/ab.png').read_bytes().startswith(b'\x89PNG')
