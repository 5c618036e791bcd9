"""alexnet_jax.tools.error_table against numpy on the networks' logits."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from alexnet_jax import errors, train, trained
from alexnet_jax.tools import error_table
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
  """Two networks: checkpoints of a run on the tiny set."""
  directory = tmp_path_factory.mktemp('runs')
  tiny.prepare_tiny(directory)
  run = directory / 'run'
  train.train_and_evaluate(tiny.get_config(str(directory)), run)
  return [f'{run}@5', str(run)]


def expect(names, count):
  """Returns labels, and probabilities of each network and of their mean."""
  members = []
  for name in names:
    run = trained.read(name, {})
    labels, probs = views.probabilities(
      run.config, run.params, run.workdir, count
    )
    members.append(probs)
  return labels, [*members, np.mean(members, axis=0)]


def check(confusion, summary, labels, probs):
  taken = probs.argmax(axis=1)
  expected = np.zeros((3, 3), int)
  np.add.at(expected, (labels, taken), 1)
  np.testing.assert_array_equal(confusion, expected)
  assert summary['examples'] == len(labels)
  assert summary['top1_error'] == pytest.approx((taken != labels).mean())
  assert summary['top5_error'] == 0  # of three classes
  loss = -np.log(probs[np.arange(len(labels)), labels]).mean()
  assert summary['loss'] == pytest.approx(loss, rel=1e-5)
  for i, name in enumerate(tiny.CLASSES):
    by_class = (taken[labels == i] != i).mean()
    assert summary['top1_error_by_class'][name] == pytest.approx(by_class)


def test_ten_views_are_numpys(networks):
  runs = error_table.load_runs(networks, {'eval.views': 10})
  # On four devices; 21 examples leave a last batch of 5.
  tallies = error_table.measure(runs, batch_size=16)
  labels, probs = expect(networks, 10)
  assert np.abs(probs[0] - probs[1]).max() > 0.01
  for tally, p in zip(tallies.values(), probs, strict=True):
    check(tally.confusion, tally.summary(list(tiny.CLASSES)), labels, p)


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


def test_the_command_writes_the_table(networks, tmp_path):
  command = [sys.executable, '-m', 'alexnet_jax.tools.error_table', '--views=1']
  command += [f'--workdirs={",".join(networks)}', f'--output={tmp_path}']
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=True
  )
  table = (tmp_path / 'results.md').read_text()
  assert table in done.stdout
  models = json.loads((tmp_path / 'results.json').read_text())['models']
  run = networks[1]
  names = [f'{run}, step 5', f'{run}, step 10', '2 networks']
  assert list(models) == names
  labels, probs = expect(networks, 1)
  confusion = np.load(tmp_path / 'confusion.npz')
  lines = table.splitlines()[2:5]
  for name, line, p in zip(names, lines, probs, strict=True):
    check(confusion[name], models[name], labels, p)
    error = 100 * models[name]['top1_error']
    assert line.startswith(f'| {name} | {error:.1f}% |')


def test_mistakes_are_sentences(networks):
  run = networks[1]
  with pytest.raises(errors.UserError, match='twice'):
    error_table.load_runs([run, f'{run}@10'], {})
  runs = error_table.load_runs(networks, {})
  with pytest.raises(errors.UserError, match='batch_size=15'):
    error_table.measure(runs, 15)
  runs[f'{run}, step 10'].class_names.append('grey')
  with pytest.raises(errors.UserError, match='different classes'):
    error_table.measure(runs, 16)
