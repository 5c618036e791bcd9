"""Figure 1's program on trainings whose curves are formulas."""

import dataclasses
import json
import math

import pytest

from alexnet_jax import errors
from experiments import relu_vs_tanh
from experiments.figure_1 import race, report

# Epochs to 25 % at the best rate; a seed takes a tenth of an epoch more.
EPOCHS = {'relu': 6.0, 'tanh': 30.0}
BEST = {'relu': 3e-3, 'tanh': 1e-3}


def _field(run, name):
  flags = dict(flag.split('=', 1) for flag in run.flags)
  return flags[f'--config.{name}']


def _execute(runs, epochs=EPOCHS, fails=''):
  """Errors fall by a straight line; too high a rate explodes."""
  for run in reversed(runs):  # as processes may end
    activation = _field(run, 'model.activation')
    rate = float(_field(run, 'optimizer.learning_rate'))
    result = {'variant': run.variant, 'seed': run.seed}
    if activation == fails:
      yield result | {'status': 'failed', 'reason': 'exit code 1: no disk'}
      continue
    if rate > 3 * BEST[activation]:
      reason = 'exit code 1: error: loss of step 7 were not finite'
      yield result | {'status': 'failed', 'reason': reason}
      continue
    distance = abs(math.log(rate / BEST[activation]))
    takes = epochs[activation] * (1 + distance) + run.seed / 10
    most = float(_field(run, 'num_epochs'))
    run.workdir.mkdir(parents=True, exist_ok=True)
    with (run.workdir / 'metrics.jsonl').open('w') as file:
      for epoch in range(math.floor(min(takes, most)) + 2):
        error = 0.9 - 0.65 * epoch / takes
        row = {'step': 391 * epoch, 'epoch': epoch, 'split': 'train'}
        row['top1_error'] = error
        file.write(json.dumps(row) + '\n')
    yield result | {'status': 'finished'}


def _lab(tmp_path, execute=_execute):
  conditions = relu_vs_tanh.CONDITIONS
  return race.Lab(tmp_path, 'cifar10', conditions, execute, seeds=(1, 2, 3))


def test_rates_are_tuned_apart_and_other_seeds_compared(tmp_path):
  pair = race.compare(_lab(tmp_path), '2012')
  for activation, line in pair.items():
    tried = [attempt.rate for attempt in line.tuning]
    expected = {'relu': [3e-3, 1e-2, 1e-3], 'tanh': [3e-3, 1e-2, 1e-3, 3e-4]}
    assert tried == expected[activation]
    assert {attempt.seed for attempt in line.tuning} == {race.TUNING_SEED}
    assert {attempt.rate for attempt in line.attempts} == {BEST[activation]}
    assert [attempt.seed for attempt in line.attempts] == [1, 2, 3]
    expected = [EPOCHS[activation] + seed / 10 for seed in (1, 2, 3)]
    assert [attempt.epochs for attempt in line.attempts] == pytest.approx(
      expected
    )
  table = report.markdown({'2012': pair})
  # Of 30.1 / 6.1, 30.2 / 6.2 and 30.3 / 6.3.
  means = '0.003 | 6.2 ± 0.1 | 0.001 | 30.2 ± 0.1 | 4.87 ± 0.062 | 6 | 1, 2, 3'
  assert f'| 2012 | {means} |' in table
  # Of 29.6 / 5.6, 29.7 / 5.7 and 29.8 / 5.8.
  assert 'the ratios would be 5.21 ± 0.074 (2012).' in table
  assert '| 2012 | ReLU |  |  | > 6 | 6 | exploded |  |  |' in table
  assert '| 2012 | tanh |  | > 30 | 30 | > 60 | exploded |  |  |' in table
  assert report.draw({'2012': pair}).axes


def test_tanh_gives_up_after_ten_times_as_long(tmp_path):
  def execute(runs):
    return _execute(runs, {'relu': 2.0, 'tanh': 21.0})

  pair = race.compare(_lab(tmp_path, execute), '2012')
  assert {attempt.limit for attempt in pair['tanh'].tuning} == {20.0}
  # 20 epochs of the tuning seed, against 2.3 of the slowest of ReLU's.
  table = report.markdown({'2012': pair})
  assert '| none | > 20 | > 8.7 | 6 |' in table


def test_relu_may_fail_where_tanh_arrives(tmp_path):
  def execute(runs):
    return _execute(runs, {'relu': 70.0, 'tanh': 24.0})

  pair = race.compare(_lab(tmp_path, execute), '2012')
  assert pair['tanh'].tuning[0].limit == 60.0
  # 24.3 epochs of the slowest of tanh, against 60.
  cells = '| none | > 60 | 0.001 | 24.2 ± 0.1 | < 0.405 | 6 | 0, 1, 2, 3 |'
  assert cells in report.markdown({'2012': pair})


@pytest.mark.parametrize(
  'relu, tanh, cells',
  [
    ((6, 6), (12, None), '6 ± 0 | 0.003 | 12, > 60 | 2, > 10'),
    ((6, None), (12, 30), '6, > 20 | 0.003 | 21 ± 13 | 2, < 1.5'),
    ((6, None), (None, None), '6, > 20 | 0.003 | > 60 | > 10, ?'),
  ],
)
def test_seeds_that_do_not_arrive_are_bounds(relu, tanh, cells):
  def line(activation, limit, epochs):
    tuned = race.Attempt('2012', activation, 3e-3, 0, limit, 5.0)
    attempts = [
      dataclasses.replace(tuned, seed=seed, epochs=taken)
      for seed, taken in enumerate(epochs, 1)
    ]
    return race.Line([tuned], attempts)

  pair = {'relu': line('relu', 20.0, relu), 'tanh': line('tanh', 60.0, tanh)}
  assert f'| 2012 | 0.003 | {cells} | 6 | 1, 2 |' in report.markdown(
    {'2012': pair}
  )


@pytest.mark.parametrize('field', ['seed', 'num_epochs', 'data.scale'])
def test_what_is_compared_cannot_be_undone(tmp_path, field):
  lab = dataclasses.replace(_lab(tmp_path), overrides={field: '5'})
  with pytest.raises(errors.UserError, match=f'--set={field}=5 would undo'):
    race.compare(lab, '2012')


def test_numbers_that_explode_are_no_failure_but_others_are(tmp_path):
  lab = _lab(tmp_path)
  (attempt,) = lab.train('2012', 'relu', 0.1, [0], 9)
  assert attempt.exploded and attempt.epochs is None
  failing = _lab(tmp_path, lambda runs: _execute(runs, fails='tanh'))
  with pytest.raises(errors.UserError, match='no disk'):
    race.compare(failing, '2012')
