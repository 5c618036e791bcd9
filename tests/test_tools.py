"""Tools that apply a network, against numpy; one tiny run serves all."""

import io
import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from alexnet_jax import errors, train, train_step, trained
from alexnet_jax.tools import (
  describe,
  draw_network,
  features,
  kernels,
  nearest,
  predict,
  show_batch,
  top_activations,
)
from configs import alexnet
from tests import tiny, views

COUNT = tiny.COUNTS['train']
CROP, MARGIN = 28, 2
# Training images that are one and the same.
TWINS = [5, 37, 59]
SPREADS = [(1, 7), (4, 22)]  # devices, batch size


def images(directory, split):
  """Returns the stored images of a split, [N, S, S, 3] of uint8."""
  pixels = np.fromfile(
    directory / 'tiny' / f'{split}-00000-of-00001.raw', np.uint8
  )
  return pixels.reshape(-1, tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A trained run; its validation pictures are also PNG files."""
  directory = tmp_path_factory.mktemp('run')
  tiny.prepare_tiny(directory)
  shard = directory / 'tiny' / 'train-00000-of-00001.raw'
  pixels = np.memmap(shard, np.uint8, 'r+').reshape(COUNT, -1)
  pixels[TWINS] = pixels[TWINS[0]]
  pixels.flush()
  tiny.renew_digest(directory / 'tiny', shard)
  config = tiny.get_config(str(directory))
  state = train.train_and_evaluate(config, directory / 'run')
  (directory / 'pictures' / 'more').mkdir(parents=True)
  for i, picture in enumerate(images(directory, 'validation')):
    path = directory / 'pictures' / 'more' / f'{i:02}.png'
    path.write_bytes(tf.io.encode_png(picture).numpy())
  return directory, config, state.params


def load(directory, num_devices=1, name='run', **overrides):
  given = {'num_devices': num_devices, 'data.dir': str(directory)}
  return trained.load(str(directory / name), given | overrides)


def apply(directory, config, params, split):
  """Returns logits [N, classes] and all that layers make of the patches."""
  inside = slice(MARGIN, MARGIN + CROP)
  with np.load(directory / 'run' / 'preprocessing.npz') as arrays:
    mean = arrays['mean_image'][inside, inside]
  patches = images(directory, split)[:, inside, inside].astype(np.float32)
  logits, kept = train_step.create_model(config).apply(
    {'params': params},
    (patches - mean) / 64,
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  return np.asarray(logits), kept['intermediates']


def run_tool(tool, *arguments):
  """Runs a tool's `main` in this process; returns its exit code."""
  # Another test may have imported main.py, which has a --workdir as well.
  taken = [flags.FLAGS[name] for name in flags.FLAGS if name == 'workdir']
  for flag in taken:
    delattr(flags.FLAGS, flag.name)
  before = set(flags.FLAGS)
  tool.define_flags()
  try:
    tool.main(flags.FLAGS(['tool', *arguments])[1:])
  except SystemExit as end:
    return end.code
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    for flag in taken:
      flags.FLAGS[flag.name] = flag
  return 0


def test_probabilities_are_numpys(run):
  directory, config, params = run
  network = load(directory, name='run@10', **{'eval.views': 10})
  paths = list(predict.find([str(directory / 'pictures')]))
  assert [pathlib.Path(p).stem for p in paths] == [f'{i:02}' for i in range(21)]
  pictures = [predict.read(path, tiny.SIZE) for path in paths]
  labels, expected = views.probabilities(config, params, directory / 'run', 10)
  found = list(predict.predict(network, pictures, 8))
  assert [picture.name for picture, _ in found] == paths
  actual = np.stack([probabilities for _, probabilities in found])
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  # The same for images of the data set, in another order.
  prepared = network.open_data()
  chosen = predict.choose(network, prepared, count=30, seed=1, batch_size=8)
  rows = [int(picture.name.split('/')[1]) for picture, _ in chosen]
  assert rows != list(range(21)) == sorted(rows)
  assert [picture.label for picture, _ in chosen] == labels[rows].tolist()
  actual = np.stack([probabilities for _, probabilities in chosen])
  np.testing.assert_allclose(actual, expected[rows], rtol=1e-5)
  wrong = predict.choose(
    network, prepared, count=3, seed=1, only_wrong=True, batch_size=8
  )
  expected_rows = [i for i in rows if expected[i].argmax() != labels[i]]
  assert [int(p.name.split('/')[1]) for p, _ in wrong] == expected_rows[:3]


def test_bad_files_are_named_and_the_others_predicted(
  run, tmp_path, capsys, monkeypatch
):
  directory, *_ = run
  picture = str(directory / 'pictures' / 'more' / '03.png')
  text, missing = tmp_path / 'text.png', tmp_path / 'missing.png'
  text.write_text('no picture')
  workdir = f'--workdir={directory}/run'
  listed = f'{text}\n{picture}\n{missing}\n'.encode()
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(listed)))
  arguments = workdir, '--batch_size=4', '--views=1'
  assert run_tool(predict, *arguments, '--json', '--top=1', '-') == 1
  out, err = capsys.readouterr()
  result = json.loads(out)
  assert (result['path'], len(result['predictions'])) == (picture, 1)
  assert [x for x in err.splitlines() if x.startswith('error: ')] == [
    f'error: {text} cannot be read as an image (it is no readable JPEG, '
    'PNG, BMP, GIF, TIFF or WEBP).',
    f'error: {missing}: No such file or directory; give the path of a picture.',
  ]
  # An argument that is bad does not cost the others.
  empty = tmp_path / 'empty'
  empty.mkdir()
  assert run_tool(predict, *arguments, str(empty), picture) == 1
  out, err = capsys.readouterr()
  assert out.startswith(picture)
  assert f'error: {empty} holds no pictures; give another folder.' in err
  assert run_tool(predict, *arguments, picture) == 0
  first, *classes = capsys.readouterr().out.splitlines()
  assert first == picture
  assert {line.split()[1] for line in classes} == set(tiny.CLASSES)


@pytest.mark.parametrize(
  'name, label',
  [
    ('p/dog/old/0.png', 'dog'),
    ('p/train/dog/0.png', 'dog'),
    ('p/validation/dog/0.png', 'dog'),
    ('p/train/0.png', 'train'),  # a class of trains
    ('p/0.png', ''),
  ],
)
def test_a_label_is_the_class_folder(name, label):
  assert features._label(name, ['q', 'p']) == label


def test_features_of_pictures_have_paths_and_labels(run, tmp_path, capsys):
  directory, *_ = run
  network, output = load(directory), tmp_path / 'f.npz'
  pictures = directory / 'pictures'
  alone = pictures / 'more' / '03.png'
  arguments = [f'--workdir={directory}/run', f'--output={output}']
  arguments += ['--layer=conv5', '--batch_size=8', str(pictures)]
  assert run_tool(features, *arguments, str(alone), __file__) == 1
  assert f'{__file__} cannot be read' in capsys.readouterr().err
  with np.load(output) as made:
    files = [str(path) for path in sorted(pictures.rglob('*.png'))]
    assert made['paths'].tolist() == [*files, str(alone)]
    assert set(made['labels']) == {'more'}
    pixels = images(directory, 'validation')
    expected = network.features(pixels, 'conv5').reshape(len(pixels), -1)
    expected = np.concatenate([expected, expected[3:4]])
    np.testing.assert_allclose(made['features'], expected, atol=1e-5)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_features_are_the_networks(run, num_devices):
  directory, config, params = run
  network = load(directory, num_devices)
  queries = images(directory, 'validation')  # 21: do not divide
  logits, kept = apply(directory, config, params, 'validation')
  layer = features.last_hidden(network.config.model)
  assert layer == 'fc7'
  made = trained.create_extractor(network, layer, 8)(queries)
  # The head reads them, so that they give the logits.
  expected = made.astype(np.float64) @ params['fc8']['kernel']
  expected += params['fc8']['bias']
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
  for name, part, towers in (
    ('conv2', trained.OUTPUT, kept['conv2_output'][0]),
    ('conv2', trained.MAPS, kept['conv2']['__call__'][0]),
    ('fc8', trained.OUTPUT, [logits]),
  ):
    np.testing.assert_allclose(
      trained.create_extractor(network, name, 22, part)(queries),
      np.concatenate(towers, axis=-1),
      rtol=1e-5,
      atol=1e-5,
    )


@pytest.mark.parametrize('num_devices,batch_size', SPREADS)
def test_neighbours_are_brute_forces(run, num_devices, batch_size):
  directory, *_ = run
  network = load(directory, num_devices)
  prepared = network.open_data()
  queries = nearest.choose(network, prepared, count=5)
  extract = trained.create_extractor(network, 'fc7', 60)
  wanted = extract(np.stack([q.pixels for q in queries])).astype(np.float64)
  made = extract(images(directory, 'train'))
  expected = np.linalg.norm(wanted[:, None] - made, axis=-1)  # [Q, N]
  order = np.argsort(expected, axis=1, kind='stable')
  numbers, distances = nearest.nearest(
    network, prepared, queries, count=COUNT + 2, batch_size=batch_size
  )
  # Twins can differ in the last bit.
  for found in (numbers, order):
    found[np.isin(found, TWINS)] = TWINS[0]
  np.testing.assert_array_equal(numbers, order)
  np.testing.assert_allclose(distances, np.sort(expected), rtol=1e-5)


def test_ties_go_to_the_lower_record():
  scores = np.random.default_rng(0).integers(9, size=(3, COUNT))
  for size in (1, 7, COUNT):
    stream = ({'score': scores[:, i : i + size]} for i in range(0, COUNT, size))
    best = features.rank(stream, 40)
    order = np.argsort(-scores, axis=1, kind='stable')[:, :40]
    np.testing.assert_array_equal(best['record'], order)
    expected = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_array_equal(best['score'], expected)


def test_a_file_of_features_gives_the_same_neighbours(
  run, tmp_path, monkeypatch, capsys
):
  directory, *_ = run
  network, older = load(directory), load(directory, name='run@5')
  prepared, path = network.open_data(), tmp_path / 'new' / 'train.npy'
  queries = nearest.choose(network, prepared)
  expected = nearest.nearest(network, prepared, queries)

  with monkeypatch.context() as patch:
    patch.setattr(features, '_write', lambda *_: 1 / 0)  # dies
    with pytest.raises(ZeroDivisionError):
      features.stored(str(path), network, prepared, 'fc7', 'train', 16)
  assert not path.exists()
  arguments = f'--workdir={directory}/run', f'--output={path}'
  assert run_tool(features, *arguments) == 0
  assert capsys.readouterr().out == f'{path}\n'
  stored = np.load(path)
  assert stored.dtype == np.float32
  extract = trained.create_extractor(network, 'fc7', COUNT)
  made = extract(images(directory, 'train'))
  np.testing.assert_allclose(stored, made, rtol=1e-5, atol=1e-6)

  monkeypatch.setattr(features, 'batches', None)  # would not do
  actual = nearest.nearest(
    network, prepared, queries, batch_size=22, path=str(path)
  )
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_allclose(actual[1], expected[1], rtol=1e-5)
  for other in ((older, 'fc7', 'train'), (network, 'fc6', 'train')):
    with pytest.raises(errors.UserError, match='of another network, layer'):
      nearest.nearest(
        other[0], prepared, queries, layer=other[1], path=str(path)
      )


@pytest.mark.parametrize('num_devices,batch_size', SPREADS)
def test_top_activations_are_numpys(run, num_devices, batch_size):
  directory, config, params = run
  network = load(directory, num_devices)
  prepared = network.open_data()
  _, kept = apply(directory, config, params, 'train')
  for layer, channels in (('conv4', [3, 12]), ('fc7', [20])):
    found = top_activations.find(
      network, prepared, layer, channels, count=4, batch_size=batch_size
    )
    maps = np.concatenate(kept[layer]['__call__'][0], axis=-1)
    if maps.ndim == 2:
      maps = maps[:, None, None, :]
    for i, channel in enumerate(channels):
      flat = maps[..., channel].reshape(COUNT, -1)
      records = np.argsort(-flat.max(axis=1), kind='stable')[:4]
      places = np.divmod(flat.argmax(axis=1), maps.shape[2])
      np.testing.assert_array_equal(found['record'][i], records)
      for name, place, side in zip('yx', places, maps.shape[1:3], strict=True):
        fractions = (place[records] + 0.5) / side
        np.testing.assert_allclose(found[name][i], fractions, rtol=1e-6)
      values = flat.max(axis=1)[records]
      np.testing.assert_allclose(found['score'][i], values, rtol=1e-5)


def test_kernels_are_squares_of_their_weights(run):
  directory, _, params = run
  chart = kernels.draw(load(directory))
  tower_2, tower_1 = (np.asarray(x.get_array()) for x in chart.images)
  shape = tower_1.shape[:2]
  for tower, block in enumerate((tower_1, tower_2)):
    kernel = params['conv1']['kernel'][tower, ..., 3]  # the last of four
    shown = 0.5 + 0.5 * kernel / np.abs(kernel).max()
    square = shape[0] // 5
    middles = block[square // 2 :: square, square // 2 :: square]
    np.testing.assert_allclose(middles[:, -5:], shown, rtol=1e-6)


@pytest.mark.parametrize(
  'tool,arguments',
  [
    (predict, ['--seed=1', '--views=1']),
    (nearest, ['--batch_size=16']),
    (kernels, []),
    (top_activations, ['--layer=conv2', '--channels=0,7']),
  ],
)
def test_tools_write_pictures(run, tmp_path, capsys, tool, arguments):
  directory, *_ = run
  picture = tmp_path / 'new' / 'picture.png'
  given = [f'--workdir={directory}/run', f'--output={picture}', *arguments]
  assert run_tool(tool, *given) == 0
  assert capsys.readouterr().out == f'{picture}\n'
  assert picture.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('noise', ['none', 'paper'])
def test_a_batch_is_drawn_stage_by_stage(run, noise):
  _, config, _ = run
  config = config.copy_and_resolve_references()
  config.data.color_noise = noise
  axes = show_batch.draw(config, step=3, count=2).axes
  assert len(axes) == 2 * (4 if noise == 'none' else 5)
  stored, cropped, delivered = (
    np.asarray(axes[i].images[0].get_array()) for i in (0, 2, 4)
  )
  (box,) = axes[0].patches
  left, top = map(int, box.get_xy())
  window = stored[top : top + CROP, left : left + CROP]
  np.testing.assert_array_equal(cropped, window)
  mirrored = axes[4].get_xlabel() == 'mirrored'
  expected = cropped[:, ::-1] if mirrored else cropped
  np.testing.assert_array_equal(delivered, expected)


@pytest.mark.parametrize(
  'text, names',
  [
    (b'a.png\n\nb c.png', ['a.png', 'b c.png']),
    (b'a.png\r\nb.png\r\n', ['a.png', 'b.png']),
    (b'\xef\xbb\xbfa.png\r\n', ['a.png']),
    (b'a\nb.png\0c.png\0', ['a\nb.png', 'c.png']),
    (b'\xff.png\n', ['\udcff.png']),
    (b'', []),
  ],
)
def test_lists_of_files(monkeypatch, text, names):
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(text)))
  assert list(predict.find(['-'])) == names


@pytest.mark.parametrize(
  'changes, lines',
  [
    # The paper's Figure 2: columns meet at conv3, fc6 and fc7, which have four
    # lines; every other layer has two.
    ({}, 2 + 2 + 4 + 2 + 2 + 4 + 4 + 2),
    # #150, whose columns meet at fc8 alone.
    ({f'{name}.gather': False for name in ('conv3', 'fc6', 'fc7')}, 8 * 2),
    ({'towers': 1}, 8),
  ],
)
def test_lines_cross_where_columns_meet(changes, lines):
  config = alexnet.get_config()
  config.model.update_from_flattened_dict(changes)
  (axis,) = draw_network.draw(config).axes
  texts = [text.get_text() for text in axis.texts]
  assert texts.count('') == lines  # arrows are texts without words
  towers = config.model.towers
  for shape in ('55 × 55 × 48', '27 × 27 × 128', '13 × 13 × 128'):
    assert texts.count(shape) == towers
  assert texts.count('13 × 13 × 192') == texts.count('2048') == 2 * towers
  assert texts.count('224 × 224 × 3') == texts.count('1000') == 1


def test_the_papers_network_is_described():
  text = describe.describe(alexnet.get_config())
  assert '| conv5 | 13 x 13 x 128 | 6 x 6 x 128 |' in text
  assert '| total |  |  | 60,965,224 |' in text


def test_mistakes_are_sentences(run, tmp_path):
  directory, *_ = run
  network = load(directory, 4)
  prepared = network.open_data()
  queries = nearest.choose(network, prepared, count=1)
  workdir = f'--workdir={directory}/run'
  for call, match in (
    (lambda: load(directory, name='run@last'), 'is no step'),
    (lambda: trained.load(str(tmp_path), {}), 'holds no run'),
    (lambda: list(predict.find([str(tmp_path)])), 'no pictures'),
    (lambda: run_tool(predict, 'x.jpg'), 'workdir is missing'),
    (
      lambda: nearest.nearest(network, prepared, queries, layer='conv9'),
      'conv9',
    ),
    (
      lambda: nearest.nearest(network, prepared, queries, batch_size=3),
      'batch_size=3',
    ),
    (lambda: top_activations.choose(network, 'conv9'), 'conv9'),
    (
      lambda: top_activations.find(network, prepared, 'conv2', [0, 12]),
      'channels=12',
    ),
  ):
    with pytest.raises(errors.UserError, match=match):
      call()
  with pytest.raises(flags.IllegalFlagValueError, match='ends in .png'):
    run_tool(kernels, workdir, '--output=kernels.txt')
  with pytest.raises(flags.IllegalFlagValueError, match='views=3'):
    run_tool(predict, workdir, '--views=3')
