"""Errors against a sort, and what metrics.jsonl keeps."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from alexnet_jax import errors, metrics
from alexnet_jax.workdir import metrics_file


def sums(log_probs, labels, mask=None):
  arrays = (
    jnp.asarray(log_probs, jnp.float32),
    jnp.asarray(labels),
    jnp.ones(len(labels)) if mask is None else jnp.asarray(mask, jnp.float32),
  )
  return {name: float(v) for name, v in metrics.sums(*arrays).items()}


def sorted_sums(log_probs, labels):
  """By a stable sort, in which ties go to the lower label."""
  ranking = np.argsort(-log_probs, axis=1, kind='stable')
  ranks = [list(row).index(y) for row, y in zip(ranking, labels, strict=True)]
  top = min(5, log_probs.shape[1])
  return {
    'loss': -sum(row[y] for row, y in zip(log_probs, labels, strict=True)),
    'top1_error': sum(rank >= 1 for rank in ranks),
    'top5_error': sum(rank >= top for rank in ranks),
    'examples': len(labels),
  }


@pytest.mark.parametrize('classes', [2, 4, 5, 6, 30])
def test_sums_agree_with_a_sort(classes):
  rng = np.random.default_rng(classes)
  # Few values make many ties; whole numbers add up exactly.
  log_probs = -rng.integers(0, 6, (300, classes)).astype(float)
  labels = rng.integers(0, classes, 300)
  assert sums(log_probs, labels) == sorted_sums(log_probs, labels)
  mask = np.arange(300) < 250
  made = metrics.class_sums(jnp.asarray(log_probs), jnp.asarray(labels), mask)
  made = {name: np.asarray(values) for name, values in made.items()}
  for label in range(classes):
    own = mask & (labels == label)
    expected = sorted_sums(log_probs[own], labels[own])
    assert made['class_examples'][label] == expected['examples']
    assert made['class_errors'][label] == expected['top1_error']


def test_ties_go_to_the_lower_label():
  uniform = np.full((7, 7), -2.0)
  totals = sums(uniform, np.arange(7))
  assert (totals['top1_error'], totals['top5_error']) == (6, 2)


@pytest.mark.parametrize('classes', [3, 8])
def test_nan_counts_as_an_error(classes):
  everywhere = np.full((1, classes), np.nan)
  totals = sums(everywhere, [0])
  assert (totals['top1_error'], totals['top5_error']) == (1, 1)
  assert math.isnan(totals['loss'])
  own_alone = np.full((1, classes), -9.0)
  own_alone[0, 0] = np.nan
  totals = sums(own_alone, [0])
  assert (totals['top1_error'], totals['top5_error']) == (1, 1)
  another = np.full((1, classes), -9.0)
  another[0, 0], another[0, 1] = -0.1, np.nan
  assert sums(another, [0])['top1_error'] == 1


def test_masked_rows_count_for_nothing():
  rng = np.random.default_rng(0)
  log_probs = -rng.integers(0, 6, (9, 10)).astype(float)
  labels, mask = rng.integers(0, 10, 9), np.arange(9) < 6
  expected = sums(log_probs[:6], labels[:6])
  log_probs[6], log_probs[7] = np.nan, -np.inf
  assert sums(log_probs, labels, mask) == expected
  assert set(sums(log_probs, labels, 0 * mask).values()) == {0.0}


def test_means_divide_by_the_examples():
  totals = {'loss': 6.0, 'top1_error': 3.0, 'top5_error': 1.0, 'examples': 4.0}
  assert metrics.means(totals) == {
    'loss': 1.5,
    'top1_error': 0.75,
    'top5_error': 0.25,
    'examples': 4,
  }


def test_rows_of_the_step_come_from_the_checkpoint(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  with metrics_file.MetricsWriter(tmp_path, 0, (), 0) as writer:
    for step, split in ((1, 'train'), (2, 'validation'), (2, 'train')):
      writer.write(step, step / 2, split, {'loss': step / 3}, {'seconds': 2.0})
    rows = writer.rows(2)
    assert writer.rows(1) == []
  assert [row['split'] for row in rows] == ['validation', 'train']
  whole = path.read_text()
  path.write_text(whole[:-20])
  with metrics_file.MetricsWriter(tmp_path, 2, json.loads(json.dumps(rows)), 3):
    assert path.read_text() == whole
  # What was due after the step had not been done.
  with metrics_file.MetricsWriter(tmp_path, 2, (), 1):
    assert path.read_text() == whole.splitlines(keepends=True)[0]


def test_writer_drops_later_rows_and_a_cut_off_line(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  lines = [json.dumps({'step': s, 'split': 'train'}) for s in (1, 2, 3)]
  cut_off = '{"step": 1, "spl'
  path.write_text('\n'.join([*lines, cut_off]))
  rows = [json.loads(lines[1])]
  with metrics_file.MetricsWriter(tmp_path, 2, rows, 2) as writer:
    assert path.read_text().splitlines() == lines[:2]
    writer.write(3, 1.5, 'train', {'loss': 0.25}, {'seconds': 2.0})
  *kept, new = path.read_text().splitlines()
  assert kept == lines[:2]
  assert json.loads(new) == {
    'step': 3,
    'epoch': 1.5,
    'split': 'train',
    'loss': 0.25,
    'timing': {'seconds': 2.0},
  }


@pytest.mark.parametrize(
  'row',
  [
    {'step': 3},
    {'split': 'train'},
    {'step': '3', 'split': 'train'},
    {'step': True, 'split': 'train'},
    {'step': 3, 'split': 'test'},
    [3, 'train'],
    3,
  ],
  ids=str,
)
def test_what_is_no_row_is_named(tmp_path, row):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps(row) + '\n')
  for read in (
    lambda: metrics_file.read(tmp_path),
    lambda: metrics_file.MetricsWriter(tmp_path, 9, (), 0),
  ):
    with pytest.raises(errors.UserError, match='metrics.jsonl has a line that'):
      read()


def test_writer_begins_a_file(tmp_path):
  with metrics_file.MetricsWriter(tmp_path, 0, (), 0) as writer:
    writer.write(1, 0.5, 'train', {'loss': 0.25}, {})
    # What a killed run has logged is on disk.
    row = json.loads((tmp_path / 'metrics.jsonl').read_text())
  assert (row['step'], row['loss']) == (1, 0.25)


def test_tensorboard_shows_the_same_numbers(tmp_path):
  with metrics_file.MetricsWriter(tmp_path, 0, (), 0) as writer:
    writer.write(3, 0.5, 'train', {'loss': 0.25}, {'seconds': 2.0})
    writer.write(7, 1.5, 'train', {'loss': 0.125}, {'seconds': 4.0})
    # What a killed run has logged is on disk.
    shown = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  for name, values in (('loss', [0.25, 0.125]), ('seconds', [2.0, 4.0])):
    points = shown.Tensors(f'train/{name}')
    assert [point.step for point in points] == [3, 7]
    assert [tf.make_ndarray(point.tensor_proto) for point in points] == values


def test_lost_rows_are_said(tmp_path, capsys):
  row = {'step': 1, 'split': 'train'}
  path = tmp_path / 'metrics.jsonl'
  for text, lost in ((f'{json.dumps(row)}\n', 1), ('', 2), (None, 2)):
    path.unlink() if text is None else path.write_text(text)
    with metrics_file.MetricsWriter(tmp_path, 2, (), 2):
      assert f'has lost {lost} of 2 rows' in capsys.readouterr().out
