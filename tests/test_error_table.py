"""experiments.error_table against numpy on the networks' logits."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax import errors, train
from alexnet_jax.analysis import error_table
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Two runs of the tiny set, by directory: configs and parameters."""
  directory = tmp_path_factory.mktemp('runs')
  tiny.prepare_tiny(directory)
  runs = {}
  for seed, name in enumerate(('a', 'b')):
    config = tiny.get_config(str(directory))
    config.seed = seed
    state = train.train_and_evaluate(config, directory / name)
    runs[str(directory / name)] = config, state.params
  return runs


@pytest.mark.parametrize('count', [1, 10])
def test_rows_are_numpys(trained, count):
  overrides = {'eval.views': count}
  runs = [error_table.load(path, overrides) for path in trained]
  # On four devices; 21 examples leave a last batch of 5.
  tallies = error_table.measure(runs, batch_size=16)
  members = [
    views.probabilities(config, params, pathlib.Path(path), count)
    for path, (config, params) in trained.items()
  ]
  labels = members[0][0]
  probs = [probs for _, probs in members]
  assert len(tallies) == 3
  for tally, p in zip(
    tallies.values(), [*probs, np.mean(probs, axis=0)], strict=True
  ):
    check(tally, labels, p)


def check(tally, labels, probs):
  taken = probs.argmax(axis=1)
  confusion = np.zeros((3, 3), int)
  for label, other in zip(labels, taken, strict=True):
    confusion[label, other] += 1
  np.testing.assert_array_equal(tally.confusion, confusion)
  summary = tally.summary(list(tiny.CLASSES))
  assert summary['examples'] == len(labels)
  assert summary['top1_error'] == pytest.approx((taken != labels).mean())
  assert summary['top5_error'] == 0  # of three classes
  loss = -np.log(probs[np.arange(len(labels)), labels]).mean()
  assert summary['loss'] == pytest.approx(loss, rel=1e-5)
  for i, name in enumerate(tiny.CLASSES):
    expected = (taken[labels == i] != i).mean()
    assert summary['top1_error_by_class'][name] == pytest.approx(expected)


def test_top_five_is_numpys():
  rng = np.random.default_rng(0)
  log_probs, labels = rng.normal(size=(40, 9)), rng.integers(0, 9, 40)
  tally = error_table.Tally(9)
  for start in (0, 25):  # two batches, the second shorter
    end = start + 25
    tally.add(labels[start:end], log_probs[start:end].astype(np.float32))
  summary = tally.summary([str(i) for i in range(9)])
  best = np.argsort(-log_probs, axis=1)[:, :5]
  expected = 1 - np.mean((best == labels[:, None]).any(axis=1))
  assert 0 < expected < 1
  assert summary['top5_error'] == pytest.approx(expected)


def test_command_writes_the_table(trained, tmp_path):
  first, second = trained
  command = [sys.executable, '-m', 'experiments.error_table', '--views=1']
  command += [f'--workdirs={first}@5,{second}', f'--output={tmp_path}']
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=True
  )
  table = (tmp_path / 'results.md').read_text()
  assert table in done.stdout
  models = json.loads((tmp_path / 'results.json').read_text())['models']
  names = [f'{first}, step 5', f'{second}, step 10', '2 networks']
  assert list(models) == names
  for line, (name, row) in zip(
    table.splitlines()[2:], models.items(), strict=False
  ):
    assert line.startswith(f'| {name} | {100 * row["top1_error"]:.1f}% |')
  with np.load(tmp_path / 'confusion.npz') as confusion:
    assert confusion['2 networks'].sum() == tiny.COUNTS['validation']


def test_mistakes_are_sentences(trained):
  first, second = trained
  runs = [error_table.load(path, {}) for path in (first, second)]
  with pytest.raises(errors.UserError, match='twice'):
    error_table.measure([runs[0], runs[0]], 16)
  with pytest.raises(errors.UserError, match='batch_size=15'):
    error_table.measure(runs, 15)
  name, run, prepared = runs[1]
  run.class_names.append('grey')
  with pytest.raises(errors.UserError, match='different classes'):
    error_table.measure([runs[0], (name, run, prepared)], 16)
