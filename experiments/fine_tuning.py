r"""What a network learned about five classes is worth for five others.

    python -m experiments.fine_tuning --tfds_dir=DIR --workdir=runs/fine_tuning

For each seed: a network learns five of CIFAR-10's classes from 25,000 pictures;
`configs/fine_tune.py` fine-tunes it on 50 pictures of each of the other five,
drawn by that seed; the same recipe, and the same at ten times the rate (that of
a first training), start from scratch. Errors are of the other five classes'
5,000 test pictures.

Pictures, runs and results.md go to --workdir. The same command again goes on
where it was.
"""

import pathlib
import shutil

import ml_collections
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

from alexnet_jax import (
  command_line,
  compilation_cache,
  errors,
  rows,
  tables,
  train,
)
from alexnet_jax.sweeps import sweep_results
from configs import cifar10, fine_tune

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory to write to.')
_TFDS_DIR = flags.DEFINE_string('tfds_dir', None, 'Where TFDS keeps CIFAR-10.')
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'One trial for each.')
_PER_CLASS = 50
_EPOCHS = 100.0
_HALVES = {'first': range(5), 'other': range(5, 10)}
_ROWS = {
  'fine_tuned': 'fine-tuned: old layers at a tenth of the rate',
  'scratch': 'from scratch, the same recipe',
  'scratch_fast': 'from scratch, all layers at the full rate',
}


def _write_folder(
  folder: pathlib.Path, half: str, per_class: int | None, seed: int
) -> str:
  """Pictures of half of the classes as PNG files; its name as data."""
  name = f'folder={folder}'
  if folder.exists():
    return name
  partial = folder.with_suffix('.partial')
  shutil.rmtree(partial, ignore_errors=True)
  for split, wanted in (('train', per_class), ('test', None)):
    data, info = tfds.load(
      'cifar10',
      data_dir=_TFDS_DIR.value,
      split=split,
      batch_size=-1,
      with_info=True,
    )
    labels = data['label'].numpy()
    for label in _HALVES[half]:
      rows = np.flatnonzero(labels == label)
      rows = np.random.default_rng([seed, label]).permutation(rows)[:wanted]
      split_name = {'train': 'train', 'test': 'validation'}[split]
      class_name = info.features['label'].int2str(label)
      _write(partial / split_name / class_name, data['image'], rows)
  partial.rename(folder)
  return name


def _write(folder: pathlib.Path, images: tf.Tensor, rows: np.ndarray) -> None:
  folder.mkdir(parents=True)
  for row in rows:
    encoded = tf.io.encode_png(images[row]).numpy()
    (folder / f'{row:05}.png').write_bytes(encoded)


def _pretraining(data: str, workdir: pathlib.Path, seed: int):
  """cuda-convnet's net from today's start: He's, inputs of unit variance."""
  config = cifar10.get_config(data)
  config.data.update({'dir': str(workdir / 'data'), 'image_size': 32})
  config.data.update({'crop_size': 32, 'flip': True, 'scale': 64.0})
  config.model.init = 'he'
  config.optimizer.learning_rate = 0.01
  config.optimizer.decay_multipliers.fc10 = 1.0
  config.seed = seed
  config.num_epochs = 8.0
  config.schedule.drops = ((6, 0.1),)
  return config


def _recipe(origin: pathlib.Path, data: str, workdir: pathlib.Path, seed: int):
  """`configs/fine_tune.py`, for longer, as there is so little to see."""
  config = fine_tune.get_config(f'{origin}:{data}')
  config.data.dir = str(workdir / 'data')
  config.seed, config.batch_size = seed, 50
  config.num_epochs = _EPOCHS
  config.schedule.drops = ((0.75 * _EPOCHS, 0.1),)
  config.eval_every_epochs = config.checkpoint_every_epochs = 0.0
  return config


def _variants(
  recipe: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """The recipe, and its rivals that start from scratch."""
  scratch = recipe.copy_and_resolve_references()
  scratch.init_from = ''
  fast = scratch.copy_and_resolve_references()
  fast.optimizer.learning_rate *= 10
  fast.optimizer.rate_multipliers.fc10 = 1.0
  return {'fine_tuned': recipe, 'scratch': scratch, 'scratch_fast': fast}


def _error(config: ml_collections.ConfigDict, run: pathlib.Path) -> float:
  """Trains; the last validation error."""
  train.train_and_evaluate(config, run)
  logged = rows.read(run)
  return [r for r in logged if r['split'] == 'validation'][-1]['top1_error']


def _trial(workdir: pathlib.Path, seed: int) -> dict[str, float]:
  """Top-1 errors of one seed, by row."""
  many = _write_folder(workdir / 'first', 'first', None, 0)
  few = _write_folder(workdir / f'other-{seed}', 'other', _PER_CLASS, seed)
  runs = workdir / f'seed-{seed}'
  origin = runs / 'pretrained'
  trial = {'pretrained': _error(_pretraining(many, workdir, seed), origin)}
  recipe = _recipe(origin, few, workdir, seed)
  for name, config in _variants(recipe).items():
    trial[name] = _error(config, runs / name)
  return trial


def _markdown(trials: dict[int, dict[str, float]]) -> str:
  seeds = ', '.join(map(str, trials))
  cells = []
  for key, title in _ROWS.items():
    values = [trial[key] for trial in trials.values()]
    listed = ', '.join(f'{value:.4f}' for value in values)
    paired = [trial[key] - trial['fine_tuned'] for trial in trials.values()]
    difference = sweep_results.difference_cells(paired if cells else [])
    cells.append((title, listed, f'{np.mean(values):.4f}', *difference))
  first = ', '.join(f'{trial["pretrained"]:.4f}' for trial in trials.values())
  head = (
    'top-1 error, other five classes',
    f'seeds {seeds}',
    'mean',
    'difference',
    '95 % interval',
  )
  table = tables.markdown(head, cells, 'llrrr')
  return f'{table}\n\nErrors on the first five: {first}.\n'


def main(_) -> None:
  """Does what the flags say."""
  seeds = command_line.whole_numbers('seeds', _SEEDS.value)
  if not _WORKDIR.value or not seeds:
    raise errors.UserError('--workdir or --seeds is missing; give both.')
  compilation_cache.enable()
  workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
  trials = {seed: _trial(workdir, seed) for seed in seeds}
  text = _markdown(trials)
  (workdir / 'results.md').write_text(text)
  print(text)


if __name__ == '__main__':
  command_line.run(main)
