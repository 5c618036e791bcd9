"""Sweeps: skipping, resuming, failing, SLURM; tables against formulas."""

import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from absl import flags
from ml_collections import config_flags

from alexnet_jax import errors, train_step
from alexnet_jax.run import count_steps
from experiments import (
  ablations,
  large_batch,
  lrn_cifar10,
  own_pictures,
  relatives,
  sweep,
)
from experiments.sweeps import program, runner, table
from experiments.sweeps.experiment import Experiment, Variant, plan
from tests import pictures
from tests.runs import config_of

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENTS = ablations.EXPERIMENTS | {
  'large_batch': large_batch.EXPERIMENT,
  'lrn_cifar10': lrn_cifar10.EXPERIMENT,
  'own_pictures': own_pictures.EXPERIMENT,
  'relatives': relatives.EXPERIMENT,
}
TOGETHER = {'ablation_network': 12, 'ablation_overfitting': 5}
# A training of ten steps, which resumes. One variant fails. With STOP_AT in the
# environment it ends at this step as after SIGTERM.
MAIN = """
import json, os, pathlib, sys, time
flags = dict(flag.lstrip('-').split('=', 1) for flag in sys.argv[1:])
if flags['config.variant'] == 'broken':
  sys.exit('error: no such thing.')
rows = pathlib.Path(flags['workdir']) / 'metrics.jsonl'
done = len(rows.read_text().splitlines()) if rows.exists() else 0
for step in range(done, 10):
  if step == int(os.environ.get('STOP_AT', -1)):
    sys.exit(143)
  time.sleep(.02)
  error = int(flags['config.seed']) + len(flags['config.variant'])
  row = {'step': step, 'epoch': step / 2, 'split': 'validation',
         'top1_error': error / (step + 2)}
  with rows.open('a') as file:
    file.write(json.dumps(row) + chr(10))
(rows.parent / 'starts').open('a').write('x')
"""
SWEEP = """
import pathlib, sys
from experiments.sweeps import runner
from tests import test_sweep
runner.ROOT = pathlib.Path(sys.argv[1])
runs = test_sweep.plan(test_sweep.EXPERIMENT, runner.ROOT / 'runs')
list(runner.execute_all(runs, [{}, {}]))
"""
EXPERIMENT = Experiment(
  'test',
  'A claim.',
  'configs/none.py',
  {
    'long': Variant({'variant': 'long'}, published=0.5),
    'broken': Variant({'variant': 'broken'}),
    'the longer': Variant({'variant': 'longer'}, published=0.6),
  },
  seeds=(0, 1),
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  """A directory with `MAIN` as its main.py."""
  (tmp_path / 'main.py').write_text(MAIN)
  monkeypatch.setattr(runner, 'ROOT', tmp_path)
  return tmp_path


def _start(root):
  root.mkdir(exist_ok=True)
  (root / 'main.py').write_text(MAIN)
  command = [sys.executable, '-c', SWEEP, str(root)]
  return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def _steps(root):
  """Steps that are logged, by run."""
  return {
    path.parent.relative_to(root): [
      json.loads(row)['step'] for row in path.read_text().splitlines()
    ]
    for path in root.glob('*/*/metrics.jsonl')
  }


def test_a_killed_sweep_ends_like_another(tmp_path, monkeypatch):
  monkeypatch.setattr(runner, 'ROOT', tmp_path)
  for steps, whole in ((3, False), (16, True)):  # of 40
    process = _start(tmp_path)
    while sum(map(len, _steps(tmp_path / 'runs').values())) < steps:
      time.sleep(0.01)
    # The runner alone, whose trainings live on, or all that it has started.
    kill = os.killpg if whole else os.kill
    kill(process.pid, signal.SIGKILL)
    process.wait()
  assert _start(tmp_path).wait() == 0
  # Trainings that outlived the kill were waited for, not joined by others.
  found = _steps(tmp_path / 'runs')
  assert len(found) == 4 and list(found.values()) == [list(range(10))] * 4
  for run in plan(EXPERIMENT, tmp_path / 'runs'):
    result = runner.measure(run, runner.execute(run, {}))
    if run.variant == 'broken':
      assert result['reason'] == 'exit code 1: error: no such thing.'
    else:
      variant = run.variant.removeprefix('the ')
      expected = (run.seed + len(variant)) / 11
      assert (result['value'], result['steps']) == (expected, 9)


def test_devices_are_shared_out_and_signals_named(checkout):
  (checkout / 'main.py').write_text(
    'import os, sys\n'
    'if "--config.variant=broken" in sys.argv: os.kill(os.getpid(), 9)\n'
    'sys.exit(os.environ["DEVICE"])'
  )
  runs = plan(EXPERIMENT, checkout / 'runs')
  devices = [{'DEVICE': 'a'}, {'DEVICE': 'b'}]
  for result in runner.execute_all(runs, devices):
    expected = {'exit code 1: a', 'exit code 1: b'}
    if result['variant'] == 'broken':
      expected = {'killed by SIGKILL: no output'}
    assert result['reason'] in expected


def test_stopping_early_starts_no_other_run(checkout):
  results = runner.execute_all(plan(EXPERIMENT, checkout / 'runs'), [{}])
  next(results)
  results.close()
  assert len(list(checkout.glob('runs/*/*/starts'))) < 4


def test_a_finished_run_keeps_its_flags(checkout):
  def execute(overrides):
    run, *_ = plan(EXPERIMENT, checkout / 'runs', overrides=overrides)
    return runner.execute(run, {}).get('reason', '')

  for overrides, starts, reason in (
    ({}, 1, ''),
    ({}, 1, ''),
    # Nothing would be evaluated anew, and the old numbers reported.
    ({'eval.views': 1}, 1, 'other flags (--config.eval.views=1); give'),
    # main.py trains on, or refuses.
    ({'num_epochs': 2}, 2, ''),
    # No number depends on it; main.py says that the run is complete.
    ({'num_epochs': 2, 'data.dir': 'elsewhere'}, 3, ''),
  ):
    assert reason in execute(overrides)
    assert len((checkout / 'runs/long/seed-0/starts').read_text()) == starts


class _Flags(types.SimpleNamespace):
  def __getitem__(self, name):
    return getattr(self, name)


def _given(**values):
  """Flags of a sweep."""
  defaults = {'workdir': None, 'results': None, 'sbatch': None, 'data': ''}
  lists = {'variants': [], 'seeds': [], 'set': [], 'gpus': [], 'vary': []}
  return _Flags(**defaults | lists | values)


def _install(folder, name, script):
  folder.mkdir(exist_ok=True)
  (folder / name).write_text(f'#!/bin/bash\n{script}\n')
  (folder / name).chmod(0o755)


def test_slurm_trains_what_is_missing(checkout, monkeypatch, capsys):
  workdir, calls = checkout / 'a sweep', checkout / 'calls'
  script = workdir / 'sweep.sbatch'
  srun = f'echo srun $1 >> {calls}; exec "${{@:4}}" >> "${{2#--output=}}" 2>&1'
  _install(checkout / 'bin', 'srun', srun)
  _install(checkout / 'bin', 'scontrol', f'echo scontrol $@ >> {calls}')
  options = '--time=24:00:00 --cpus-per-task=8'
  monkeypatch.setattr(
    program, '_FLAGS', _given(workdir=str(workdir), sbatch=options)
  )

  def execute(task, **variables):
    environment = {
      **os.environ,
      'PATH': f'{checkout}/bin:{os.environ["PATH"]}',
      'SLURM_ARRAY_TASK_ID': str(task),
      'SLURM_ARRAY_JOB_ID': '70',
      'SLURM_CPUS_PER_TASK': '8',
    }
    command = ['bash', str(script)]
    return subprocess.run(command, env=environment | variables).returncode

  program.sweep(EXPERIMENT)
  said = capsys.readouterr().out
  assert said.splitlines()[-1] == f"sbatch '{script}'"
  lines = script.read_text().splitlines()
  assert f'#SBATCH {options}' in lines
  assert {'#SBATCH --array=0-5', '#SBATCH --requeue'} < set(lines)
  assert '#SBATCH --signal=TERM@120' in lines
  # A time limit in the middle of the third run, after the first failed.
  assert execute(1) == 1
  assert execute(2, STOP_AT='4') == 143
  assert execute(0) == 0
  assert calls.read_text().splitlines() == [
    'srun --cpus-per-task=8',
    'srun --cpus-per-task=8',
    'scontrol requeue 70_2',
    'srun --cpus-per-task=8',
  ]
  assert _steps(workdir) == {
    pathlib.Path('long/seed-0'): list(range(10)),
    pathlib.Path('the longer/seed-0'): list(range(4)),
  }
  # The same command makes the table of what there is.
  with pytest.raises(SystemExit) as ended:
    program.sweep(EXPERIMENT)
  assert ended.value.code == 1
  assert '5 of 6 runs are not finished' in capsys.readouterr().out
  text = (workdir / 'results.md').read_text()
  assert '| long | 0.3636 |  |  | 1 |' in text
  assert '- broken, seed 0: not finished: error: no such thing.' in text
  assert '- the longer, seed 1: not finished: no output' in text
  lines = script.read_text().splitlines()
  assert '#SBATCH --array=0-4' in lines
  assert execute(1) == 0
  found = _steps(workdir)
  assert found[pathlib.Path('the longer/seed-0')] == list(range(10))
  # What SLURM has finished is finished here, too.
  run = plan(EXPERIMENT, workdir)[2]
  assert run.variant == 'the longer' and runner.has_ended(run)
  assert runner.execute(run, {})['status'] == 'finished'
  assert (run.workdir / 'starts').read_text() == 'x'


@pytest.mark.parametrize(
  'given, message',
  [
    ({'sbatch': 'time=60'}, '--sbatch=time=60 is no list of options'),
    ({'sbatch': '-t 60', 'gpus': ['0']}, '--gpus=0 is for this machine'),
    ({'variants': ['short']}, '--variants=short does not exist; .* the longer'),
    ({'set': ['seed=7']}, '--set=seed=7 would undo'),
    ({'set': ['variant=7']}, '--set=variant=7 would undo'),
    ({'set': ['seed']}, '--set=seed is no FIELD=VALUE'),
    ({'data': 'cifar10'}, '--data=cifar10: test .* give one of imagenet2012'),
    ({'workdir': None}, '--workdir is missing'),
  ],
)
def test_wrong_flags_are_refused(tmp_path, monkeypatch, given, message):
  given = {'workdir': str(tmp_path)} | given
  monkeypatch.setattr(program, '_FLAGS', _given(**given))
  with pytest.raises(errors.UserError, match=message):
    program._main(EXPERIMENT, [])


@pytest.mark.parametrize(
  'given, seeds',
  [([], []), (['3'], [0, 1, 2]), (['4', '7'], [4, 7]), (['0', ''], [0])],
)
def test_seeds_are_counted_or_named(monkeypatch, given, seeds):
  monkeypatch.setattr(program, '_FLAGS', _given(seeds=given))
  assert program.seeds() == seeds


# Its error is 10 times the rate, and .1 more for tanh, less a hundredth of the
# seed.
GRID_MAIN = """
import json, pathlib, sys
flags = dict(flag.lstrip('-').split('=', 1) for flag in sys.argv[1:])
error = 10 * float(flags['config.optimizer.learning_rate'])
error += .1 * (flags['config.model.activation'] == 'tanh')
error -= .01 * int(flags['config.seed'])
row = {'step': 9, 'epoch': 1, 'split': 'validation', 'top1_error': error}
folder = pathlib.Path(flags['workdir'])
(folder / 'metrics.jsonl').write_text(json.dumps(row) + chr(10))
(folder / 'starts').open('a').write('x')
"""


def _sweep(workdir, monkeypatch, *argv, **given):
  """Runs `experiments.sweep` with quickstart."""
  argv = ['sweep.py', '--config=configs/quickstart.py:cifar10', *argv]
  monkeypatch.setattr('sys.argv', argv)  # where overrides are looked for
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  values(argv)
  values = {'workdir': str(workdir), 'gpus': ['0'], 'config': values['config']}
  for module in (program, sweep):
    monkeypatch.setattr(module, '_FLAGS', _given(**values | given))
  sweep.main([])


def test_a_grid_ends_in_a_table_and_the_best_command(
  checkout, monkeypatch, capsys
):
  (checkout / 'main.py').write_text(GRID_MAIN)
  grid = ['model.activation=relu,tanh', 'optimizer.learning_rate=.03,.01']
  for _ in range(2):  # the second time there is nothing left to train
    with pytest.raises(SystemExit) as ended:
      _sweep(
        checkout / 'a',
        monkeypatch,
        '--config.num_epochs=5',
        vary=grid,
        seeds=['2'],
      )
    assert not ended.value.code
  names = [
    f'activation={activation} learning_rate={rate}'
    for activation in ('relu', 'tanh')
    for rate in ('0.03', '0.01')
  ]
  starts = {path.parent for path in checkout.glob('a/*/*/starts')}
  assert starts == {
    checkout / 'a' / name / f'seed-{seed}' for name in names for seed in (0, 1)
  }
  assert all((path / 'starts').read_text() == 'x' for path in starts)
  # Paired differences are the same for both seeds.
  text = (checkout / 'a/results.md').read_text()
  assert f'| {names[0]} | 0.295 | 0.007071 |' in text
  assert (
    f'| {names[1]} | 0.095 | 0.007071 |  | 2 | -0.2000 | -0.2000 to' in text
  )
  assert (
    f'| {names[2]} | 0.395 | 0.007071 |  | 2 | +0.1000 | +0.1000 to' in text
  )
  assert 'published' not in text
  assert capsys.readouterr().out.splitlines()[-2:] == [
    f'The lowest mean error is that of {names[1]}. Its best run:',
    'python main.py --config=configs/quickstart.py:cifar10 '
    f"'--workdir={checkout}/a/{names[1]}/seed-1' --config.num_epochs=5.0 "
    '--config.model.activation=relu --config.optimizer.learning_rate=0.01 '
    '--config.seed=1',
  ]


def test_values_with_commas_and_slashes_are_values(tmp_path):
  grid = sweep.parse_grid(
    [
      'model.conv1.after=("act","lrn"),("act",)',
      'init_from=runs/a,runs/b',
      'model.conv2.after=("act",)',
    ]
  )
  assert grid['model.conv1.after'] == [('act', 'lrn'), ('act',)]
  assert grid['init_from'] == ['runs/a', 'runs/b']
  variants = sweep.variants(grid)  # two fields end in the same word
  assert len(variants) == 4
  assert all('model.conv2.after=' in name for name in variants)
  experiment = Experiment('x', '', 'configs/x.py', variants, data='')
  runs = plan(experiment, tmp_path, seeds=[1])
  assert {run.workdir.parent.parent for run in runs} == {tmp_path}
  assert runs[0].flags[0] == '--config=configs/x.py'


@pytest.mark.parametrize(
  'given, message',
  [
    ({'vary': ['model.activaton=a']}, 'Did you mean "activation"'),
    ({'vary': ['batch_size']}, '--vary=batch_size has no values'),
    ({'vary': ['batch_size=2,a']}, '--vary=batch_size=a is no value like 64'),
    ({'vary': ['batch_size=2,.5']}, '--vary=batch_size=0.5 is no value like'),
    ({'vary': ['data.flip=true,maybe']}, '--vary=data.flip=maybe is no value'),
    ({'vary': ['model.activation=relu,tanh,relu']}, 'activation=relu twice'),
    ({'vary': ['optimizer.learning_rate=.01,1e-2']}, 'rate=0.01 twice'),
    ({'vary': ['seed=1,2']}, '--vary=seed .* give --seeds'),
    ({'vary': ['model.omit=,lrn'], 'set': ['model.omit=']}, 'would undo'),
    ({'seeds': ['0']}, '--seeds=0 is no number of seeds'),
  ],
)
def test_wrong_grids_are_refused(tmp_path, monkeypatch, given, message):
  with pytest.raises(errors.UserError, match=message):
    _sweep(tmp_path, monkeypatch, **given)


@pytest.mark.parametrize('flag', ['--config.seed=1', '--config.batch_size=1'])
def test_a_fixed_field_undoes_no_grid(tmp_path, monkeypatch, flag):
  with pytest.raises(errors.UserError, match=f'{flag} would undo --vary'):
    _sweep(tmp_path, monkeypatch, flag, vary=['batch_size=2,4'])


def _row(values):
  return table.Row('x', dict(enumerate(values)), (), (), None, '', False)


BASELINE = _row([0.30, 0.28, 0.29])


def test_statistics_are_the_textbooks():
  row = _row([0.32, 0.31, 0.30])
  assert row.mean == pytest.approx(0.31)
  assert row.std == pytest.approx(0.01)
  paired = table.differences(row, BASELINE)
  assert paired == pytest.approx([0.02, 0.03, 0.01])
  # mean +- t(0.975, 2 degrees of freedom) * sd / sqrt(n)
  half = 4.302653 * 0.01 / math.sqrt(3)
  assert table.interval(paired) == pytest.approx((0.02 - half, 0.02 + half))
  cells = ['+0.0200', '-0.0048 to +0.0448']
  assert table.difference_cells(paired) == cells
  # Of the seeds that both have: t(0.975, 1 degree of freedom) = 12.706205.
  row = dataclasses.replace(BASELINE, values={5: 0.9, 2: 0.33, 1: 0.30})
  paired = table.differences(row, BASELINE)
  assert paired == pytest.approx([0.04, 0.02])
  expected = (0.03 - 0.12706205, 0.03 + 0.12706205)
  assert table.interval(paired) == pytest.approx(expected)


@pytest.mark.parametrize(
  'values, published, worse, verdict',
  [
    # Half of the interval is 4.302653 * .005 / sqrt(3) = .0124.
    ((0.325, 0.31, 0.315), 0.5, False, 'supported'),
    ((0.325, 0.31, 0.315), 0.3, False, 'contradicted'),
    ((0.315, 0.29, 0.295), 0.5, False, 'not resolved'),
    ((0.325, 0.31, 0.315), None, True, 'supported'),
    ((0.275, 0.26, 0.265), None, True, 'contradicted'),
    ((0.325, 0.31, 0.315), None, False, ''),
    ((0.325,), 0.5, True, ''),
  ],
)
def test_a_verdict_is_where_the_interval_lies(
  values, published, worse, verdict
):
  rows = [
    dataclasses.replace(BASELINE, published=0.4),
    dataclasses.replace(_row(values), published=published, is_worse=worse),
  ]
  text = table.markdown(EXPERIMENT, rows, '')
  (line,) = [line for line in text.splitlines() if line.startswith('| x')][1:]
  assert line.endswith(f'| {verdict} |')


@pytest.mark.parametrize(
  'values, cells', [({0: 0.35}, ['+0.0500', '']), ({7: 0.35}, ['', ''])]
)
def test_fewer_than_two_common_seeds_have_no_interval(values, cells):
  row = dataclasses.replace(BASELINE, values=values)
  assert table.difference_cells(table.differences(row, BASELINE)) == cells
  assert math.isnan(table.smallest_difference([BASELINE, row]))
  text = table.markdown(EXPERIMENT, [BASELINE, row], '')
  assert 'nan' not in text and 'Intervals' not in text


def test_the_smallest_difference_pools_variants_that_learn():
  rows = [
    BASELINE,
    _row([0.32, 0.31, 0.30]),  # differences with standard deviation 0.01
    _row([0.30, 0.31, 0.35]),  # 0.03
    _row([0.90, 0.90, 0.90]),  # at chance
    _row([0.31]),
    _row([]),
  ]
  expected = 4.302653 * math.sqrt((0.01**2 + 0.03**2) / 2) / math.sqrt(3)
  assert table.smallest_difference(rows) == pytest.approx(expected)
  text = table.markdown(EXPERIMENT, rows, '')
  assert 'Differences below 0.056 could not be told from zero' in text


def test_rows_are_of_the_results_in_their_order():
  results = [
    {'variant': name, 'seed': 0, 'status': 'failed', 'reason': 'no such thing'}
    for name in ('the longer', 'once so called')
  ]
  longer, unknown = table.rows(EXPERIMENT, results)
  assert (longer.variant, longer.published) == ('the longer', 0.6)
  assert (unknown.variant, unknown.published) == ('once so called', None)


@pytest.mark.parametrize(
  'folder, name, data',
  [
    ('ablation_network', 'ablation_network', 'cifar10'),
    ('ablation_overfitting', 'ablation_overfitting', 'cifar10'),
    ('imagenette', 'ablation_pictures', 'folder=imagenette128'),
    ('imagenette_half', 'ablation_pictures_half', 'folder=imagenette128'),
    ('large_batch', 'large_batch', 'cifar10'),
    ('lrn_cifar10', 'lrn_cifar10', ''),
    ('own_pictures', 'own_pictures', 'folder=imagenette128'),
    ('own_pictures_few', 'own_pictures', 'folder=imagenette128'),
    ('relatives', 'relatives', 'folder=imagenette128'),
  ],
)
def test_committed_tables_follow_from_committed_rows(
  tmp_path, monkeypatch, folder, name, data
):
  committed = ROOT / 'experiments/results' / folder
  path = tmp_path / 'results.jsonl'
  path.write_bytes((committed / path.name).read_bytes())
  given = _given(results=str(path))
  monkeypatch.setattr(program, '_FLAGS', given)
  program.sweep(EXPERIMENTS[name], data)
  expected = (committed / 'results.md').read_text()
  assert (tmp_path / 'results.md').read_text() == expected
  assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


FINISHED = '{"variant": "a", "seed": 0, "status": "finished", "value": 0.5, '


@pytest.mark.parametrize(
  'text',
  [
    '',
    'no row\n',
    '{"step": 3}\n',
    '[]\n',
    '{"variant": "a", "seed": 0}\n',
    '{"variant": "a", "seed": "0", "status": "failed", "reason": "no"}\n',
    '{"variant": "a", "seed": 0, "status": "failed"}\n',
    FINISHED + '"training_error": "low"}\n',
    (FINISHED + '"training_error": null}\n').replace('0.5', 'NaN'),
  ],
)
def test_other_files_are_no_results(tmp_path, monkeypatch, text):
  path = tmp_path / 'results.jsonl'
  path.write_text(text)
  monkeypatch.setattr(program, '_FLAGS', _given(results=str(path)))
  with pytest.raises(errors.UserError, match='not the result of'):
    program.sweep(EXPERIMENT)


def _measure(workdir, logged):
  """The result of a run that has logged this, and its row of the table."""
  run, *_ = plan(EXPERIMENT, workdir)
  run.workdir.mkdir(parents=True)
  (run.workdir / 'metrics.jsonl').write_text(logged)
  result = runner.measure(run, runner.outcome(run))
  row, *_ = table.rows(EXPERIMENT, [result])
  assert 'nan' not in table.markdown(EXPERIMENT, [row], '')
  return result, row


def test_training_errors_are_of_the_last_epoch(tmp_path):
  logged = [
    # split, epoch, error, examples
    ('train', 8.9, 0.9, 100),
    ('train', 9.5, 0.4, 100),
    ('train', 10.0, 0.1, 50),
    ('validation', 10.0, 0.5, 70),
  ]
  names = ('split', 'epoch', 'top1_error', 'examples')
  rows = [dict(zip(names, row, strict=True)) | {'step': 5} for row in logged]
  result, row = _measure(
    tmp_path, ''.join(json.dumps(row) + '\n' for row in rows)
  )
  assert result['value'] == 0.5
  assert result['training_error'] == pytest.approx(0.3)
  assert row.training == (result['training_error'],)


@pytest.mark.parametrize(
  'logged, reason',
  [
    ('', 'has no metrics yet'),
    ('{"step": 3, "split": "train"}\n', 'ended without a validation'),
    ('{"step"\n', 'a line that is no row'),
    ('{"step": 3, "split": "validation", "epoch": 1}\n', 'top1_error=None'),
  ],
)
def test_a_run_without_a_result_has_failed(tmp_path, logged, reason):
  result, row = _measure(tmp_path, logged)
  assert result['status'] == 'failed' and reason in result['reason']
  assert not row.values and reason in row.failures[0]


def _config(run, monkeypatch):
  """The config as main.py would read it, of a network that can be made."""
  config = config_of(run, monkeypatch)
  train_step.abstract_train_state(config)
  return config


def test_all_ablations_are_in_one_of_the_tables():
  programs = {path.stem for path in ROOT.glob('experiments/ablation_*.py')}
  assert programs == ablations.EXPERIMENTS.keys()
  # Two others try rows of these tables on other pictures.
  on_pictures = {'ablation_pictures', 'ablation_pictures_half'}
  names = programs - TOGETHER.keys() - on_pictures
  parts = [ablations.EXPERIMENTS[name] for name in names]
  variants = []
  for name, count in TOGETHER.items():
    experiment = ablations.EXPERIMENTS[name]
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
  runs = plan(lrn_cifar10.EXPERIMENT, tmp_path, data=data, seeds=[0])
  without, with_lrn, _ = (_config(run, monkeypatch) for run in runs)
  assert without.model.omit == 'lrn'
  without.model.omit = ''
  assert without.to_json() == with_lrn.to_json()


@pytest.mark.parametrize('data', ['imagenet2012', 'cifar10', 'shapes'])
@pytest.mark.parametrize('name', TOGETHER)
def test_ablations_are_networks(tmp_path, monkeypatch, name, data):
  experiment = ablations.EXPERIMENTS[name]
  for run in plan(experiment, tmp_path, data=data, seeds=[1]):
    config = _config(run, monkeypatch)
    assert (config.seed, config.data.name) == (1, data)
    assert config.eval.views == (10 if data == 'imagenet2012' else 1)
    assert (config.num_epochs > 80) == (data == 'imagenet2012')


def test_few_pictures_are_drawn_by_seed(tmp_path, monkeypatch):
  pictures.write(
    tmp_path, {f'all/{c}/{i}.png': b'' for c in 'ab' for i in range(60)}
  )
  chosen = []
  for seed in range(2):
    target = tmp_path / f'few-{seed}'
    own_pictures.draw(tmp_path / 'all', target, 3, seed)
    for name, count in (('train', 3), ('validation', 50)):
      for c in 'ab':
        links = list((target / name / c).iterdir())
        found = {link.resolve().relative_to(tmp_path / 'all') for link in links}
        assert len(found) == count
        assert all(path.parent.name == c for path in found)
        chosen.append(found)
  train, held_out = chosen[0] | chosen[1], chosen[2] | chosen[3]
  assert not train & held_out
  assert train != chosen[4] | chosen[5]
  with pytest.raises(errors.UserError, match='a class needs 61'):
    own_pictures.draw(tmp_path / 'all', tmp_path / 'other', 11, 0)
  experiment, data = own_pictures.EXPERIMENT, f'folder={tmp_path}/few-0'
  for run in plan(experiment, tmp_path, data=data, seeds=[0]):
    config = _config(run, monkeypatch)
    assert config.model.num_classes == 2
    assert count_steps(config, 6).total == 1500
