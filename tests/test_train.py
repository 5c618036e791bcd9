"""Runs: resumed, killed, refused, stopped; evaluated with ten views."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from alexnet_jax import config as config_lib
from alexnet_jax import errors, evaluate, train, trained, validate
from alexnet_jax.workdir import files
from tests import pictures, runs, tiny, views
from tests.faults import trial

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  tiny.prepare_tiny(path)
  return str(path)


def test_rows_have_the_fields_of_the_contract(data_dir, tmp_path):
  train.train_and_evaluate(tiny.get_config(data_dir), tmp_path)
  rows = trial.rows(tmp_path)
  keys = [(row['step'], row['split']) for row in rows]
  assert len(set(keys)) == len(keys)
  assert [k for k in keys if k[1] == 'validation'] == [
    (5, 'validation'),
    (10, 'validation'),
  ]
  fields = {'step', 'epoch', 'split', 'loss', 'top1_error', 'top5_error'}
  fields |= {'examples'}
  for row in rows:
    more = {'learning_rate', 'gradient_norm'} if row['split'] == 'train' else {}
    assert set(row) == fields.union(more)
    assert row.get('learning_rate', 0.01) == pytest.approx(0.01)
    assert row['examples'] == (16 if row['split'] == 'train' else 21)
    assert row['epoch'] == row['step'] * 16 / 60


def test_environment_json_keeps_every_start(tmp_path):
  for number in range(3):
    files.write_config(tmp_path, config_lib.base(), {'number': number})
  about = json.loads((tmp_path / 'environment.json').read_text())
  assert about['packages']['jax'] == jax.__version__
  assert about['number'] == 2
  assert [old['number'] for old in about['earlier_starts']] == [0, 1]
  assert 'earlier_starts' not in about['earlier_starts'][0]


def test_checkpoints_without_a_config_are_refused(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  train.train_and_evaluate(config, tmp_path)
  (tmp_path / 'config.json').unlink()
  with pytest.raises(errors.UserError, match='checkpoints but no config.json'):
    train.train_and_evaluate(config, tmp_path)
  assert not (tmp_path / 'config.json').exists()


def test_the_clock_saves_between_distant_checkpoints(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps, config.keep_checkpoints = 45, 100
  config.checkpoint_every_steps, config.checkpoint_every_minutes = 44, 1e-9
  config.keep_best = False
  train.train_and_evaluate(config, tmp_path)
  names = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert names == {'20', '40', '44', '45'}


def test_resuming_gives_the_undisturbed_run(data_dir, tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  config = tiny.get_config(data_dir)
  expected = train.train_and_evaluate(config, whole)
  config.train_steps = 7
  train.train_and_evaluate(config, parts)
  # The row at 7 is an evaluation that only the short run has.
  config.train_steps, config.keep_best = 10, False
  state = train.train_and_evaluate(config, parts)
  runs.assert_same(state, expected)
  with pytest.raises(errors.UserError, match='no best checkpoint'):
    trained.read(f'{parts}@best', {})
  extra = {(7, 'validation')}
  rows = [r for r in trial.rows(parts) if (r['step'], r['split']) not in extra]
  assert rows == trial.rows(whole)


def _command(data_dir, workdir, *flags):
  return [
    sys.executable,
    str(ROOT / 'main.py'),
    f'--config={ROOT}/tests/tiny.py:{data_dir}',
    f'--workdir={workdir}',
    '--config.train_steps=60',
    '--config.checkpoint_every_steps=7',
    '--config.log_every_steps=3',
    *flags,
  ]


def _run(command):
  return subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=False
  )


@pytest.fixture(scope='module')
def whole(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  assert _run(_command(data_dir, workdir)).returncode == 0
  return workdir


@pytest.mark.parametrize(
  'number, code', [(signal.SIGKILL, -9), (signal.SIGTERM, 143)]
)
def test_a_kill_changes_nothing(data_dir, tmp_path, whole, number, code):
  killed = tmp_path / 'killed'
  process = subprocess.Popen(
    _command(data_dir, killed), cwd=ROOT, stderr=subprocess.DEVNULL
  )
  metrics = killed / 'metrics.jsonl'
  while not metrics.exists() or metrics.read_text().count('\n') < 6:
    time.sleep(0.005)
    assert process.poll() is None, 'the run ended before it was killed'
  os.kill(process.pid, number)
  assert process.wait() == code
  last_step = trial.rows(killed)[-1]['step']
  assert last_step < 60
  again = _run(_command(data_dir, killed))
  assert again.returncode == 0
  # Of the steps that were logged, at most those since a save are done again. A
  # save takes a while: the one at the last multiple of 7 may not be complete.
  (first_step,) = re.findall('; step ([0-9]+) of 60', again.stdout)
  assert int(first_step) > last_step - 2 * 7
  runs.assert_same(trial.newest(killed), trial.newest(whole))
  assert trial.rows(killed) == trial.rows(whole)
  best, other = (trained.read(f'{path}@best', {}) for path in (whole, killed))
  rows = [row for row in trial.rows(whole) if row['split'] == 'validation']
  lowest = min(row['top1_error'] for row in rows)
  assert best.step == other.step
  assert best.step in [r['step'] for r in rows if r['top1_error'] == lowest]
  runs.assert_same(best.variables, other.variables)


def test_eval_mode_prints_one_line_of_json_last(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  train.train_and_evaluate(config, tmp_path)
  command = [sys.executable, str(ROOT / 'main.py'), f'--workdir={tmp_path}']
  command += [f'--config={ROOT}/tests/tiny.py:{data_dir}', '--mode=eval']
  command[2] += '@5'  # an older checkpoint
  done = _run([*command, '--config.eval.views=10'])
  result = json.loads(done.stdout.splitlines()[-1])
  assert list(result) == [
    'step',
    'examples',
    'views',
    'loss',
    'top1_error',
    'top5_error',
  ]
  assert (result['step'], result['examples'], result['views']) == (5, 21, 10)
  *_, again = done.stdout.splitlines()[-2].partition('python main.py ')
  expected = [*command[2:], '--config.eval.views=1']
  assert sorted(shlex.split(again)) == sorted(expected)


def test_ten_views_average_the_softmax(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  state = train.train_and_evaluate(config, tmp_path)
  evaluation = files.evaluation_config(tmp_path, {'eval.views': 10})
  result = evaluate.evaluate_run(evaluation, tmp_path)
  expected = _ten_view_reference(config, state, tmp_path)
  assert result['top1_error'] == pytest.approx(expected['top1_error'])
  assert result['loss'] == pytest.approx(expected['loss'], rel=1e-5)


def _ten_view_reference(config, state, workdir):
  """Numpy on the network's logits, view by view."""
  labels, probs = views.probabilities(config, state.params, workdir, 10)
  own = probs[np.arange(len(labels)), labels]
  wrong = probs.argmax(axis=1) != labels
  return {'loss': -np.log(own).mean(), 'top1_error': wrong.mean()}


def test_plateau_ends_the_run_and_survives_a_restart(data_dir, tmp_path):
  config = _plateau_config(data_dir, min_delta=0.1)
  state = train.train_and_evaluate(config, tmp_path)
  rows = [r for r in trial.rows(tmp_path) if r['split'] == 'validation']
  best, drops = 1 - 7 / 21, 0  # three classes of seven images
  for row in rows:
    assert drops < 4
    if row['top1_error'] < best - 0.1:
      best = row['top1_error']
    elif best < 1 - 7 / 21:
      drops += 1
  assert drops == 4 and int(state.step) == rows[-1]['step'] < 100
  rates = [
    r['learning_rate'] for r in trial.rows(tmp_path) if 'train' in r['split']
  ]
  assert rates[-1] == pytest.approx(0.01 * 1e-3)  # three drops before the end
  runs.assert_same(train.train_and_evaluate(config, tmp_path), state)
  assert trial.rows(tmp_path)[-1]['step'] == int(state.step)


def _plateau_config(data_dir, min_delta):
  config = tiny.get_config(data_dir)
  config.schedule.name = 'plateau'
  config.schedule.min_delta = min_delta
  config.schedule.patience = 1
  config.eval_every_steps = 1
  config.train_steps = 100
  return config


def test_a_network_at_chance_trains_on_and_is_named(data_dir, tmp_path, capsys):
  config = _plateau_config(data_dir, min_delta=1.0)  # better than all errors
  config.train_steps, config.optimizer.learning_rate = 10, 0.0
  config.model.init, config.model.fc8.init_std = 'normal', 0.0
  state = train.train_and_evaluate(config, tmp_path)
  assert int(state.step) == 10
  told = capsys.readouterr().out
  assert 'has not learnt yet: chance is an error of 0.6667' in told
  warning = 'training loss is 1.0986 after step 4, as good as guessing'
  assert told.count(warning) == 1 == told.count('Warning')


def test_two_do_not_train_in_one_workdir(data_dir, tmp_path):
  with (
    files.lock(tmp_path),
    pytest.raises(errors.UserError, match='another process trains there'),
  ):
    train.train_and_evaluate(tiny.get_config(data_dir), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['train.lock']


def test_a_training_error_ends_the_run_and_it_stays_ended(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 100
  config.log_every_steps = 3
  config.stop_at_train_error = 0.4
  state = train.train_and_evaluate(config, tmp_path)
  rows = [row for row in trial.rows(tmp_path) if row['split'] == 'train']
  *before, last = (row['top1_error'] for row in rows)
  assert last < 0.4 <= min(before)
  assert int(state.step) == rows[-1]['step'] < 100
  runs.assert_same(train.train_and_evaluate(config, tmp_path), state)
  assert trial.rows(tmp_path)[-1]['step'] == int(state.step)


def test_numbers_that_explode_stop_the_run(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.optimizer.learning_rate = 1e6
  with pytest.raises(errors.UserError, match=r'step \d+ were not finite'):
    train.train_and_evaluate(config, tmp_path)
  assert not list((tmp_path / 'checkpoints').glob('[0-9]*'))


@pytest.mark.parametrize(
  'field, value, named',
  [
    ('model.activation', 'rely', "model.activation='rely'"),
    ('model.omit', 'lnr', "'lnr'"),
    ('model.num_classes', 7, 'model.num_classes=7'),
    ('data.crop_size', 40, 'data.crop_size=40'),
    ('data.image_size', 64, 'data.image_size=64'),
    ('eval.views', 3, 'eval.views=3'),
    ('batch_size', 0, 'batch_size=0'),
    ('data.scale', 0.0, 'data.scale=0.0'),
    ('profile_steps', -1, 'profile_steps=-1'),
    ('schedule.name', 'cosines', "schedule.name='cosines'"),
    ('schedule.biases.drops', ((1, 0.1),), 'schedule.biases.drops='),
    ('schedule.biases.name', 'plateau', "schedule.biases.name='plateau'"),
    ('schedule.levels', 1, 'schedule.levels=1'),
    ('model.conv4.keep', 1.5, 'model.conv4.keep=1.5'),
  ],
)
def test_configs_that_cannot_work_are_refused(
  data_dir, tmp_path, field, value, named
):
  config = tiny.get_config(data_dir)
  config.update_from_flattened_dict({field: value})
  workdir = tmp_path / 'run'
  with pytest.raises(errors.UserError, match=named):
    train.train_and_evaluate(config, workdir)
  assert not workdir.exists()


def test_a_resumed_run_refuses_another_config(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 1
  train.train_and_evaluate(config, tmp_path)
  config.optimizer.momentum = 0.5
  config.eval_every_steps = 3  # this may change
  with pytest.raises(errors.UserError) as caught:
    train.train_and_evaluate(config, tmp_path)
  assert 'optimizer.momentum: 0.9 -> 0.5' in str(caught.value)
  assert 'eval_every_steps' not in str(caught.value)


@pytest.mark.parametrize(
  'schedule, field',
  [
    ('linear', 'num_epochs'),
    ('exp', 'train_steps'),
    ('dexp', 'num_epochs'),
    ('jdexp', 'num_epochs'),
    ('plateau', 'eval_every_steps'),
  ],
)
def test_what_rates_follow_is_settled(schedule, field):
  assert config_lib.is_resumable(field, 'epochs', '')
  assert not config_lib.is_resumable(field, schedule, '')
  assert not config_lib.is_resumable(field, 'epochs', schedule)  # biases


def test_drops_that_a_schedule_has_not_are_refused(data_dir):
  config = tiny.get_config(data_dir)
  config.schedule.drops = ((1, 0.1),)
  validate.check_config(config)
  config.schedule.name = 'plateau'
  with pytest.raises(errors.UserError, match='schedule.drops='):
    validate.check_config(config)


def test_a_resumed_run_refuses_other_data(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 1
  train.train_and_evaluate(config, tmp_path / 'run')
  other = tiny.prepare_tiny(tmp_path / 'other', first_image=1)
  config.data.dir = str(other.directory.parent)
  with pytest.raises(errors.UserError, match='data.json'):
    train.train_and_evaluate(config, tmp_path / 'run')


def test_evaluation_refuses_what_the_run_has_settled(data_dir, tmp_path):
  with pytest.raises(errors.UserError, match='holds no run'):
    files.evaluation_config(tmp_path, {})
  config = tiny.get_config(data_dir)
  config.train_steps = 1
  train.train_and_evaluate(config, tmp_path)
  with pytest.raises(errors.UserError, match='model.towers=1'):
    files.evaluation_config(tmp_path, {'model.towers': 1})


def test_runs_older_than_a_field_have_its_default(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 1
  train.train_and_evaluate(config, tmp_path)
  path = tmp_path / 'config.json'
  older = json.loads(path.read_text())
  del older['init_from'], older['model']['lrn']['across_towers']
  del older['model']['conv4']['keep'], older['schedule']['biases']
  older['schedule'] |= {'biases_drop_alike': True, 'bias_drops': []}
  path.write_text(json.dumps(older))
  evaluation = files.evaluation_config(tmp_path, {})
  assert evaluation.init_from == ''
  assert evaluation.model.lrn.across_towers is False
  train.train_and_evaluate(config, tmp_path)  # it may go on


def test_fewer_steps_than_were_made_are_refused(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 2
  train.train_and_evaluate(config, tmp_path)
  stored = (tmp_path / 'config.json').read_text()
  config.train_steps = 1
  with pytest.raises(errors.UserError, match='at step 2 already but .* say 1;'):
    train.train_and_evaluate(config, tmp_path)
  assert (tmp_path / 'config.json').read_text() == stored


@pytest.mark.parametrize('length', [0, 40])
@pytest.mark.parametrize(
  'name', ['config.json', 'data.json', 'preprocessing.npz']
)
def test_a_file_that_was_cut_is_named(whole_run, tmp_path, name, length):
  config, workdir = whole_run
  shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
  content = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(content[:length])
  with pytest.raises(errors.UserError, match=f'{name} is damaged'):
    train.train_and_evaluate(config, tmp_path)


def test_data_of_other_classes_are_refused(whole_run, tmp_path):
  _, workdir = whole_run
  shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
  (tmp_path / 'class_names.txt').write_text('one\nanother\na third\n')
  config = files.evaluation_config(tmp_path, {'num_devices': 1})
  with pytest.raises(errors.UserError, match='red.*name them as'):
    evaluate.evaluate_run(config, tmp_path)


def _test_folder(root, *classes):
  """Writes seven pictures of each class, named as in tests/tiny.py."""
  files = {}
  for name in classes:
    rows = range(tiny.CLASSES.index(name), 21, 3)
    made = [tiny._image('train', row)[0] for row in rows]
    files |= {f'{name}/{i}.png': png for i, png in enumerate(made)}
  pictures.write(root, files)
  return sorted(root.rglob('*.png'))


def test_pictures_of_another_set_are_matched_by_class(
  data_dir, tmp_path, capsys
):
  config, workdir = tiny.get_config(data_dir), tmp_path / 'run'
  train.train_and_evaluate(config, workdir)
  paths = _test_folder(tmp_path / 'own', 'red', 'blue')
  fields = {'data.name': f'test={tmp_path}/own', 'data.dir': str(tmp_path)}
  config = files.evaluation_config(workdir, {'num_devices': 1, **fields})
  for _ in range(2):  # the second result replaces the first
    result = evaluate.evaluate_run(config, workdir)
  network = trained.load(str(workdir), {'num_devices': 1})
  guesses = network.predict(paths).argmax(axis=1)
  wrong = [
    tiny.CLASSES[guess] != path.parent.name
    for guess, path in zip(guesses, paths, strict=True)
  ]
  assert result['examples'] == 14
  assert result['top1_error'] == np.mean(wrong)
  (text,) = (workdir / 'evaluations.jsonl').read_text().splitlines()
  row = json.loads(text)
  rates = {'blue': np.mean(wrong[:7]), 'red': np.mean(wrong[7:])}
  assert row.pop('top1_error_of_class') == rates
  data = {'data': fields['data.name'], 'split': 'validation'}
  assert row == {**result, **data}
  assert 'not in the data: green.' in capsys.readouterr().out
  with pytest.raises(errors.UserError, match="no split 'train'"):
    tiny_config = tiny.get_config(data_dir)
    tiny_config.update_from_flattened_dict(fields)
    tiny_config.model.num_classes = 2
    train.train_and_evaluate(tiny_config, tmp_path / 'new')
  pictures.write(tmp_path / 'other', {'pink/1.png': paths[0].read_bytes()})
  config.data.name = f'test={tmp_path}/other'
  with pytest.raises(errors.UserError, match='does not know .pink.'):
    evaluate.evaluate_run(config, workdir)
  (tmp_path / 'other/pink').rename(tmp_path / 'other/red')
  with pytest.raises(errors.UserError, match='other files than'):
    evaluate.evaluate_run(config, workdir)


@pytest.fixture(scope='module')
def whole_run(data_dir, tmp_path_factory):
  """A config, and where it was trained to its end."""
  config, workdir = tiny.get_config(data_dir), tmp_path_factory.mktemp('run')
  config.train_steps = 1
  train.train_and_evaluate(config, workdir)
  return config, workdir


def test_preprocessing_of_another_run_is_refused(data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.train_steps = 1
  train.train_and_evaluate(config, tmp_path)
  path = tmp_path / 'preprocessing.npz'
  with np.load(path) as arrays:
    changed = dict(arrays)
  changed['mean_image'] += 1
  np.savez(path, **changed)
  with pytest.raises(errors.UserError, match='preprocessing.npz'):
    train.train_and_evaluate(config, tmp_path)
