"""Sweeps: skipping, resuming, failing; tables against formulas."""

import dataclasses
import importlib
import json
import math
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from absl import flags
from ml_collections import config_flags

from alexnet_jax import errors, train_state, validate
from alexnet_jax.sweeps import sweep, sweep_results
from experiments import sweep_program

ROOT = pathlib.Path(__file__).parents[1]
TOGETHER = {'ablation_network': 12, 'ablation_overfitting': 5}
ABLATIONS = sorted(
  {p.stem for p in ROOT.glob('experiments/ablation_*.py')} - TOGETHER.keys()
)
# A training that takes ten steps of 50 ms, resumes, and fails for one variant.
MAIN = """
import json, pathlib, sys, time
flags = dict(flag.lstrip('-').split('=', 1) for flag in sys.argv[1:])
if flags['config.variant'] == 'broken':
  sys.exit('error: no such thing.')
rows = pathlib.Path(flags['workdir']) / 'metrics.jsonl'
done = len(rows.read_text().splitlines()) if rows.exists() else 0
for step in range(done, 10):
  time.sleep(.05)
  error = int(flags['config.seed']) + len(flags['config.variant'])
  row = {'step': step, 'epoch': step / 2, 'split': 'validation',
         'top1_error': error / (step + 2)}
  with rows.open('a') as file:
    file.write(json.dumps(row) + chr(10))
(rows.parent / 'starts').open('a').write('x')
"""
SWEEP = """
import pathlib, sys, json
from alexnet_jax.sweeps import sweep
from tests import test_sweep
sweep._ROOT = pathlib.Path(sys.argv[1])
runs = sweep.plan(test_sweep.EXPERIMENT, sweep._ROOT / 'runs')
for result in sweep.execute_all(runs, [{}, {}]):
  print(json.dumps(result), flush=True)
"""
EXPERIMENT = sweep.Experiment(
  'test',
  'A claim.',
  'configs/none.py',
  {
    'long': sweep.Variant({'variant': 'long'}, published=0.5),
    'broken': sweep.Variant({'variant': 'broken'}),
    'longer': sweep.Variant({'variant': 'longer'}, published=0.6),
  },
  seeds=(0, 1),
)


def _start(root):
  (root / 'main.py').write_text(MAIN)
  return subprocess.Popen(
    [sys.executable, '-c', SWEEP, str(root)], cwd=ROOT, text=True
  )


def _count_rows(root):
  paths = root.glob('runs/*/*/metrics.jsonl')
  return sum(len(path.read_text().splitlines()) for path in paths)


def _table(root):
  runs = sweep.plan(EXPERIMENT, root / 'runs')
  results = [sweep.measure(run, sweep.execute(run, {})) for run in runs]
  table = sweep_results.rows(EXPERIMENT, results)
  return sweep_results.markdown(EXPERIMENT, table, '')


def test_a_killed_sweep_ends_like_another(tmp_path, monkeypatch):
  undisturbed, killed = tmp_path / 'undisturbed', tmp_path / 'killed'
  for root in (undisturbed, killed):
    root.mkdir()
  assert _start(undisturbed).wait() == 0
  monkeypatch.setattr(sweep, '_ROOT', undisturbed)
  expected = _table(undisturbed)
  for steps in (3, 14, 30):  # of 40
    process = _start(killed)
    while _count_rows(killed) < steps:
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
  assert _start(killed).wait() == 0
  monkeypatch.setattr(sweep, '_ROOT', killed)
  assert _table(killed) == expected
  # A training that outlived a kill was waited for, not joined by another.
  for run in sweep.plan(EXPERIMENT, killed / 'runs'):
    if run.variant != 'broken':
      rows = (run.workdir / 'metrics.jsonl').read_text().splitlines()
      assert [json.loads(row)['step'] for row in rows] == list(range(10))


def test_one_failure_is_reported_and_the_rest_go_on(tmp_path, monkeypatch):
  (tmp_path / 'main.py').write_text(MAIN)
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  runs = sweep.plan(EXPERIMENT, tmp_path / 'runs', seeds=[0])
  results = {r['variant']: r for r in sweep.execute_all(runs, [{}])}
  assert results['long']['status'] == results['longer']['status'] == 'finished'
  assert results['broken']['status'] == 'failed'
  assert results['broken']['reason'] == 'exit code 1: error: no such thing.'


def test_a_signal_is_named(tmp_path, monkeypatch):
  (tmp_path / 'main.py').write_text('import os\nos.kill(os.getpid(), 9)')
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  run, *_ = sweep.plan(EXPERIMENT, tmp_path / 'runs')
  assert sweep.execute(run, {})['reason'] == 'killed by SIGKILL: no output'


def test_stopping_early_starts_no_other_run(tmp_path, monkeypatch):
  (tmp_path / 'main.py').write_text(MAIN)
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  runs = sweep.plan(EXPERIMENT, tmp_path / 'runs')
  results = sweep.execute_all(runs, [{}])
  next(results)
  results.close()
  assert len(list(tmp_path.glob('runs/*/*/starts'))) < 4


@pytest.mark.parametrize(
  'overrides, starts, reason',
  [
    ({}, 'x', ''),
    # Nothing would be evaluated anew, and the old numbers reported.
    ({'eval.views': 1}, 'x', 'other flags (--config.eval.views=1); give'),
    # main.py trains on, or refuses.
    ({'num_epochs': 2}, 'xx', ''),
    # What no number depends on; main.py says that the run is complete.
    ({'data.dir': 'elsewhere'}, 'xx', ''),
  ],
)
def test_a_finished_run_keeps_its_flags(
  tmp_path, monkeypatch, overrides, starts, reason
):
  (tmp_path / 'main.py').write_text(MAIN)
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  run, *_ = sweep.plan(EXPERIMENT, tmp_path / 'runs')
  sweep.execute(run, {})
  run, *_ = sweep.plan(EXPERIMENT, tmp_path / 'runs', overrides=overrides)
  assert reason in sweep.execute(run, {}).get('reason', '')
  assert (run.workdir / 'starts').read_text() == starts


def test_devices_are_shared_out(tmp_path, monkeypatch):
  (tmp_path / 'main.py').write_text(
    'import os, sys\nsys.exit(os.environ["DEVICE"])'
  )
  monkeypatch.setattr(sweep, '_ROOT', tmp_path)
  runs = sweep.plan(EXPERIMENT, tmp_path / 'runs')
  devices = [{'DEVICE': 'a'}, {'DEVICE': 'b'}]
  reasons = [r['reason'] for r in sweep.execute_all(runs, devices)]
  assert len(reasons) == 6
  assert set(reasons) <= {'exit code 1: a', 'exit code 1: b'}


def _row(values):
  return sweep_results.Row('x', dict(enumerate(values)), (), (), None, '')


BASELINE = _row([0.30, 0.28, 0.29])


def test_intervals_are_the_textbooks():
  paired = sweep_results.differences(_row([0.32, 0.31, 0.30]), BASELINE)
  assert paired == pytest.approx([0.02, 0.03, 0.01])
  # mean +- t(0.975, 2 degrees of freedom) * sd / sqrt(n)
  half = 4.302653 * 0.01 / math.sqrt(3)
  expected = (0.02 - half, 0.02 + half)
  assert sweep_results.interval(paired) == pytest.approx(expected)
  cells = sweep_results.difference_cells(paired)
  assert cells == ['+0.0200', '-0.0048 to +0.0448']


def test_differences_are_of_common_seeds():
  row = dataclasses.replace(BASELINE, values={5: 0.9, 2: 0.33, 1: 0.30})
  paired = sweep_results.differences(row, BASELINE)
  assert paired == pytest.approx([0.04, 0.02])
  # t(0.975, 1 degree of freedom) = 12.706205, and sd / sqrt(2) = 0.01
  expected = (0.03 - 0.12706205, 0.03 + 0.12706205)
  assert sweep_results.interval(paired) == pytest.approx(expected)


@pytest.mark.parametrize(
  'values, cells', [({0: 0.35}, ['+0.0500', '']), ({7: 0.35}, ['', ''])]
)
def test_fewer_than_two_common_seeds_have_no_interval(values, cells):
  row = dataclasses.replace(BASELINE, values=values)
  paired = sweep_results.differences(row, BASELINE)
  assert sweep_results.difference_cells(paired) == cells
  assert math.isnan(sweep_results.smallest_difference([BASELINE, row]))
  text = sweep_results.markdown(EXPERIMENT, [BASELINE, row], '')
  assert 'nan' not in text and 'Intervals' not in text


def test_the_smallest_difference_pools_variants_that_learn():
  table = [
    BASELINE,
    _row([0.32, 0.31, 0.30]),  # differences with standard deviation 0.01
    _row([0.30, 0.31, 0.35]),  # 0.03
    _row([0.90, 0.90, 0.90]),  # at chance
    _row([0.31]),
    _row([]),
  ]
  expected = 4.302653 * math.sqrt((0.01**2 + 0.03**2) / 2) / math.sqrt(3)
  assert sweep_results.smallest_difference(table) == pytest.approx(expected)
  text = sweep_results.markdown(EXPERIMENT, table, '')
  assert 'Differences below 0.056 could not be told from zero' in text


def test_means_and_spreads():
  row = _row([0.1, 0.2, 0.6])
  assert row.mean == pytest.approx(0.3)
  assert row.std == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))


def test_tables_have_the_rows_of_their_results_in_order():
  results = [
    {'variant': name, 'seed': 0, 'status': 'failed', 'reason': 'no such thing'}
    for name in ('longer', 'once so called')
  ]
  longer, unknown = sweep_results.rows(EXPERIMENT, results)
  assert (longer.variant, longer.published) == ('longer', 0.6)
  assert (unknown.variant, unknown.published) == ('once so called', None)


@pytest.mark.parametrize(
  'name, data',
  [
    ('ablation_network', 'cifar10'),
    ('ablation_overfitting', 'cifar10'),
    ('lrn_cifar10', ''),
  ],
)
def test_committed_tables_follow_from_committed_rows(
  tmp_path, monkeypatch, name, data
):
  committed = ROOT / 'experiments/results' / name
  path = tmp_path / 'results.jsonl'
  path.write_bytes((committed / path.name).read_bytes())
  given = types.SimpleNamespace(results=str(path), data=data)
  monkeypatch.setattr(sweep_program, '_FLAGS', given)
  experiment = importlib.import_module(f'experiments.{name}').EXPERIMENT
  sweep_program._main(experiment, [])
  expected = (committed / 'results.md').read_text()
  assert (tmp_path / 'results.md').read_text() == expected
  assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('text', ['', 'no row\n', '{"step": 3}\n'])
def test_other_files_are_no_results(tmp_path, text):
  path = tmp_path / 'results.jsonl'
  path.write_text(text)
  with pytest.raises(errors.UserError, match='not the result of a sweep'):
    sweep_program._read_results(path)


def test_training_errors_are_of_the_last_epoch(tmp_path):
  run, *_ = sweep.plan(EXPERIMENT, tmp_path, seeds=[0])
  run.workdir.mkdir(parents=True)
  logged = [
    # split, epoch, error, examples
    ('train', 8.9, 0.9, 100),
    ('train', 9.5, 0.4, 100),
    ('train', 10.0, 0.1, 50),
    ('validation', 10.0, 0.5, 70),
  ]
  with (run.workdir / 'metrics.jsonl').open('w') as file:
    for split, epoch, error, examples in logged:
      row = {'step': 5, 'split': split, 'epoch': epoch, 'examples': examples}
      file.write(json.dumps(row | {'top1_error': error}) + chr(10))
  measured = sweep.measure(run, sweep.outcome(run))
  assert measured['value'] == 0.5
  assert measured['training_error'] == pytest.approx(0.3)
  row, *_ = sweep_results.rows(EXPERIMENT, [measured])
  assert row.training == (measured['training_error'],)


def test_unknown_data_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='recipes for imagenet2012'):
    sweep.plan(EXPERIMENT, tmp_path, data='cifar10')


@pytest.mark.parametrize('field', ['seed', 'variant'])
def test_what_a_variant_is_cannot_be_undone(tmp_path, field):
  with pytest.raises(errors.UserError, match=f'--set={field}=7 would undo'):
    sweep.plan(EXPERIMENT, tmp_path, overrides={field: '7'})


@pytest.mark.parametrize(
  'logged, reason',
  [
    ('', 'has no metrics yet'),
    ('{"step": 3, "split": "train"}\n', 'ended without a validation'),
    ('{"step"\n', 'a line that is no row'),
  ],
)
def test_a_run_without_a_result_has_failed(tmp_path, logged, reason):
  run, *_ = sweep.plan(EXPERIMENT, tmp_path, seeds=[0])
  run.workdir.mkdir(parents=True)
  (run.workdir / 'metrics.jsonl').write_text(logged)
  measured = sweep.measure(run, sweep.outcome(run))
  assert measured['status'] == 'failed' and reason in measured['reason']
  # The table has what there is, and says the rest.
  row, *_ = table = sweep_results.rows(EXPERIMENT, [measured])
  assert not row.values and reason in row.failures[0]
  assert 'nan' not in sweep_results.markdown(EXPERIMENT, table, '')


def _config(run, monkeypatch):
  """As main.py would read it."""
  argv = ['main.py', *run.flags]
  monkeypatch.setattr('sys.argv', argv)  # where overrides are looked for
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  flags.DEFINE_string('workdir', None, '', flag_values=values)
  values(argv)
  return values['config'].value


def test_all_ablations_are_in_one_of_the_tables():
  parts = [
    importlib.import_module(f'experiments.{name}').EXPERIMENT
    for name in ABLATIONS
  ]
  variants = []
  for name, count in TOGETHER.items():
    experiment = importlib.import_module(f'experiments.{name}').EXPERIMENT
    baseline, *others = experiment.variants
    assert (baseline, len(others)) == ('baseline', count)
    assert not any(',' in other for other in others)  # as --variants is a list
    variants += [experiment.variants[other] for other in others]
    of = [part for part in parts if part.claim in experiment.claim]
    assert all(part.small == experiment.small for part in of)
  expected = [v for part in parts for v in list(part.variants.values())[1:]]
  assert sorted(map(str, variants)) == sorted(map(str, expected))


@pytest.mark.parametrize('data', ['cifar10', 'shapes'])
def test_lrn_on_cifar10_is_a_pair(tmp_path, monkeypatch, data):
  experiment = importlib.import_module('experiments.lrn_cifar10').EXPERIMENT
  runs = sweep.plan(experiment, tmp_path, data=data, seeds=[0])
  without, *others = (_config(run, monkeypatch) for run in runs)
  for config in others:
    validate.check_config(config)
    train_state.abstract_train_state(config)
  with_lrn, *_ = others
  assert without.model.omit == 'lrn'
  without.model.omit = ''
  assert without.to_json() == with_lrn.to_json()


@pytest.mark.parametrize('data', ['imagenet2012', 'cifar10', 'shapes'])
@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations_are_networks(tmp_path, monkeypatch, name, data):
  experiment = importlib.import_module(f'experiments.{name}').EXPERIMENT
  for run in sweep.plan(experiment, tmp_path, data=data, seeds=[1]):
    config = _config(run, monkeypatch)
    assert (config.seed, config.data.name) == (1, data)
    assert config.eval.views == (10 if data == 'imagenet2012' else 1)
    assert (config.num_epochs > 80) == (data == 'imagenet2012')
    validate.check_config(config)
    train_state.abstract_train_state(config)
