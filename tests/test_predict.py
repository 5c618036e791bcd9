"""experiments.predict on the tiny set's pictures as files."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from alexnet_jax import errors, predict, train, trained
from tests import tiny, views

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run; its validation pictures as PNG files beside it."""
  directory = tmp_path_factory.mktemp('run')
  tiny.prepare_tiny(directory)
  config = tiny.get_config(str(directory))
  state = train.train_and_evaluate(config, directory / 'run')
  raw = directory / 'tiny' / 'validation-00000-of-00001.raw'
  pictures = np.fromfile(raw, np.uint8).reshape(-1, tiny.SIZE, tiny.SIZE, 3)
  (directory / 'pictures' / 'more').mkdir(parents=True)
  for i, picture in enumerate(pictures):
    path = directory / 'pictures' / 'more' / f'{i:02}.png'
    path.write_bytes(tf.io.encode_png(picture).numpy())
  return directory, config, state.params


@pytest.mark.parametrize('count', [1, 10])
def test_probabilities_are_numpys(run, count):
  directory, config, params = run
  network = trained.load(f'{directory}/run@10', {'eval.views': count})
  paths = list(predict.find([str(directory / 'pictures')]))
  assert [pathlib.Path(p).stem for p in paths] == [f'{i:02}' for i in range(21)]
  results = predict.predict(network, paths, batch_size=8, top=2)
  _, expected = views.probabilities(config, params, directory / 'run', count)
  for path, result, probs in zip(paths, results, expected, strict=True):
    assert result['path'] == path
    best = np.argsort(-probs)[:2]
    names = [p['class'] for p in result['predictions']]
    assert names == [tiny.CLASSES[i] for i in best]
    actual = [p['probability'] for p in result['predictions']]
    np.testing.assert_allclose(actual, probs[best], rtol=1e-5)


def _run(directory, *arguments, given=''):
  command = [sys.executable, '-m', 'experiments.predict', *arguments]
  return subprocess.run(
    [*command, f'--workdir={directory}/run', '--batch_size=4'],
    cwd=ROOT,
    input=given,
    capture_output=True,
    text=True,
    check=False,
  )


def test_bad_files_are_named_and_the_others_predicted(run, tmp_path):
  directory, *_ = run
  picture = str(directory / 'pictures' / 'more' / '03.png')
  text, missing = tmp_path / 'text.png', tmp_path / 'missing.png'
  text.write_text('no picture')
  given = f'{text}\n{picture}\n{missing}\n'
  done = _run(directory, '--json', '--top=1', '-', given=given)
  assert done.returncode == 1
  (line,) = done.stdout.splitlines()
  assert json.loads(line)['path'] == picture
  complaints = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert complaints == [
    f'error: {text} cannot be read as an image.',
    f'error: {missing}: No such file or directory.',
  ]


def test_text_is_for_people(run):
  directory, *_ = run
  picture = str(directory / 'pictures' / 'more' / '03.png')
  done = _run(directory, picture)
  assert done.returncode == 0
  first, *classes = done.stdout.splitlines()
  assert first == picture
  assert {line.split()[1] for line in classes} == set(tiny.CLASSES)


def test_mistakes_are_sentences(run, tmp_path):
  directory, *_ = run
  for arguments in ([], ['--views=3', 'x.jpg']):
    done = _run(directory, *arguments)
    assert done.returncode
    assert 'Traceback' not in done.stderr
  with pytest.raises(errors.UserError, match='is no step'):
    trained.load(f'{directory}/run@last', {})
  with pytest.raises(errors.UserError, match='no pictures'):
    list(predict.find([str(tmp_path)]))
  with pytest.raises(errors.UserError, match='holds no run'):
    trained.load(str(tmp_path), {})
