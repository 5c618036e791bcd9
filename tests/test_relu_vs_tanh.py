"""Figure 1 on trainings whose curves are formulas; the search for rates."""

import json
import math
import pathlib
import types

import pytest

from alexnet_jax import errors
from experiments import relu_vs_tanh
from experiments.relu_vs_tanh_report import Attempt, draw, markdown
from experiments.sweeps import program

ROOT = pathlib.Path(__file__).parents[1]
# Epochs to 25 % at the best rate; a seed takes a tenth of an epoch more.
EPOCHS = {'relu': 6.0, 'tanh': 30.0}
BEST = {'relu': 3e-3, 'tanh': 1e-3}


@pytest.mark.parametrize(
  'errors, epochs, expected',
  [
    ([0.5, 0.35, 0.15, 0.3], [1, 2, 3, 4], 2.5),  # the first crossing
    ([0.5, 0.3, 0.2], [2.0, 4.0, 8.0], 6.0),
    ([0.2, 0.1], [1, 2], 1.0),
    ([0.5, 0.25], [1, 2], 2.0),
    ([0.5, 0.3], [1, 2], math.inf),
    ([], [], math.inf),
  ],
)
def test_crossings(errors, epochs, expected):
  curve = list(zip(epochs, errors, strict=True))
  assert relu_vs_tanh.crossing(curve, 0.25) == pytest.approx(expected)


@pytest.mark.parametrize(
  'epochs_of, tried, best',
  [
    ({1: 9, 2: 5, 4: 3, 8: 4, 16: 1}, [4, 8, 2], 4),
    ({1: 9, 2: 5, 4: 3, 8: 2, 16: 2.5}, [4, 8, 16], 8),
    ({1: 9, 2: 5, 4: 3, 8: 2, 16: 1}, [4, 8, 16], 16),
    ({1: 1, 2: 2, 4: 3, 8: 4, 16: 5}, [4, 8, 2, 1], 1),
    # Too fast to learn anything at first.
    ({1: 9, 2: math.inf, 4: math.inf, 8: math.inf}, [4, 8, 2, 1], 1),
    ({1: 50, 2: 40, 4: 30, 8: 30, 16: 30}, [4, 8, 2, 1], None),
  ],
)
def test_search(epochs_of, tried, best):
  calls = []

  def epochs(rate, limit):
    calls.append(rate)
    return epochs_of[rate] if epochs_of[rate] < limit else math.inf

  found = relu_vs_tanh.search(epochs, (1, 2, 4, 8, 16), 4, limit=20)
  assert calls == tried == list(found)
  if best:
    assert min(found, key=found.get) == best
  else:
    assert set(found.values()) == {math.inf}


def _execute(runs, epochs, fails):
  """Errors fall by a straight line; too high a rate explodes."""
  for run in reversed(runs):  # as processes may end
    fields = dict(flag.split('=', 1) for flag in run.flags)
    activation = fields['--config.model.activation']
    rate = float(fields['--config.optimizer.learning_rate'])
    result = {'variant': run.variant, 'seed': run.seed, 'status': 'failed'}
    if activation == fails:
      yield result | {'reason': 'exit code 1: no disk'}
      continue
    if rate > 3 * BEST[activation]:
      reason = 'exit code 1: error: loss of step 7 were not finite'
      yield result | {'reason': reason}
      continue
    distance = abs(math.log(rate / BEST[activation]))
    takes = epochs[activation] * (1 + distance) + run.seed / 10
    most = float(fields['--config.num_epochs'])
    run.workdir.mkdir(parents=True, exist_ok=True)
    with (run.workdir / 'metrics.jsonl').open('w') as file:
      for epoch in range(math.floor(min(takes, most)) + 2):
        error = 0.9 - 0.65 * epoch / takes
        row = {'step': 391 * epoch, 'epoch': epoch, 'split': 'train'}
        row['top1_error'] = error
        file.write(json.dumps(row) + '\n')
    yield result | {'status': 'finished'}


@pytest.fixture
def trainer(tmp_path, monkeypatch):
  """Creates a trainer of which all trainings are formulas."""

  def create(epochs=EPOCHS, fails='', **overrides):
    monkeypatch.setattr(
      program, 'execute_all', lambda runs: _execute(runs, epochs, fails)
    )
    return relu_vs_tanh.Trainer(tmp_path, 'cifar10', (1, 2, 3), overrides)

  return create


def _of(attempts, activation, *seeds):
  return [
    attempt
    for attempt in attempts
    if attempt.activation == activation and attempt.seed in seeds
  ]


def test_rates_are_tuned_apart_and_other_seeds_compared(trainer):
  attempts = relu_vs_tanh.compare(trainer(), '2012')
  tried = {'relu': [3e-3, 1e-2, 1e-3], 'tanh': [3e-3, 1e-2, 1e-3, 3e-4]}
  for activation, rates in tried.items():
    tuning = _of(attempts, activation, 0)
    assert [attempt.rate for attempt in tuning] == rates
    compared = _of(attempts, activation, 1, 2, 3)
    assert {attempt.rate for attempt in compared} == {BEST[activation]}
    expected = [EPOCHS[activation] + seed / 10 for seed in (1, 2, 3)]
    assert [a.epochs for a in compared] == pytest.approx(expected)
  table = markdown(attempts)
  # The ratios are 30.1 / 6.1, 30.2 / 6.2 and 30.3 / 6.3.
  means = '0.003 | 6.2 ± 0.1 | 0.001 | 30.2 ± 0.1 | 4.87 ± 0.062 | 6 | 1, 2, 3'
  assert f'| 2012 | {means} |' in table
  # They are 29.6 / 5.6, 29.7 / 5.7 and 29.8 / 5.8.
  assert 'the ratios would be 5.21 ± 0.074 (2012).' in table
  assert '| 2012 | ReLU |  |  | > 6 | 6 | exploded |  |  |' in table
  assert '| 2012 | tanh |  | > 30 | 30 | > 60 | exploded |  |  |' in table


def test_one_of_the_two_may_not_arrive(trainer):
  # Tanh may take ten times ReLU's two epochs.
  attempts = relu_vs_tanh.compare(trainer({'relu': 2.0, 'tanh': 21.0}), '2012')
  tanh = _of(attempts, 'tanh', 0)
  assert {attempt.limit for attempt in tanh} == {20.0}
  assert '| none | > 20 | unknown | 6 | 0, 1, 2, 3 |' in markdown(attempts)
  attempts = relu_vs_tanh.compare(trainer({'relu': 70.0, 'tanh': 24.0}), '2012')
  assert _of(attempts, 'tanh', 0)[0].limit == 60.0
  cells = '| none | > 60 | 0.001 | 24.2 ± 0.1 | unknown | 6 | 0, 1, 2, 3 |'
  assert cells in markdown(attempts)
  assert draw(attempts).axes


def test_a_seed_that_does_not_arrive_is_a_bound():
  attempts = [
    Attempt('2012', name, 3e-3, seed, 60.0, epochs)
    for name in ('relu', 'tanh')
    for seed, epochs in ((0, 5.0), (1, 6.0), (2, None))
  ]
  cells = '| 2012 | 0.003 | 6, > 60 | 0.003 | 6, > 60 | unknown | 6 | 1, 2 |'
  assert cells in markdown(attempts)


@pytest.mark.parametrize('field', ['seed', 'num_epochs', 'data.scale'])
def test_what_is_compared_cannot_be_undone(trainer, field):
  with pytest.raises(errors.UserError, match=f'--set={field}=5 would undo'):
    relu_vs_tanh.compare(trainer(**{field: '5'}), '2012')


def test_numbers_that_explode_are_no_failure_but_others_are(trainer):
  attempt = Attempt('2012', 'relu', 0.1, 0, 9.0)
  (exploded,) = trainer().train(attempt, [0])
  assert exploded.exploded and exploded.epochs is None
  with pytest.raises(errors.UserError, match='no disk'):
    relu_vs_tanh.compare(trainer(fails='tanh'), '2012')


@pytest.mark.parametrize('name', ['relu_vs_tanh', 'relu_vs_tanh_cpu'])
def test_committed_tables_follow_from_committed_rows(
  tmp_path, monkeypatch, name
):
  committed = ROOT / 'experiments/results' / name
  path = tmp_path / 'results.jsonl'
  path.write_bytes((committed / path.name).read_bytes())
  for module in (program, relu_vs_tanh):
    given = types.SimpleNamespace(results=str(path))
    monkeypatch.setattr(module, '_FLAGS', given)
  relu_vs_tanh.main([])
  expected = (committed / 'results.md').read_text()
  assert (tmp_path / 'results.md').read_text() == expected
  assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
