r"""Fine-tuning: what five classes teach a network that then learns five others.

    python -m experiments.fine_tuning --tfds_dir=DIR --workdir=runs/fine_tuning

For each seed, a network learns five of CIFAR-10's classes from 25,000 pictures.
`configs/fine_tune.py` fine-tunes it on 50 pictures of each of the other five,
which the seed draws. Two rivals start from scratch: the same recipe, and the
same at ten times the rate (that of a first training). Errors are of the other
five classes' 5,000 test pictures.

Pictures, runs and results go to --workdir. The same command again goes on where
it was stopped.
"""

import pathlib
import shutil

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.data.lazy import tf, tfds
from experiments.sweeps import program, runner
from experiments.sweeps.experiment import Experiment, Variant

_FLAGS = flags.FLAGS
_HALVES = {'first': range(5), 'other': range(5, 10)}
_PER_CLASS = 50
_FULL_RATE = 0.01

# cuda-convnet's network from today's start: He's, inputs of unit variance.
_PRETRAINING = {
  'data.image_size': 32,
  'data.crop_size': 32,
  'data.flip': True,
  'data.scale': 64.0,
  'model.init': 'he',
  'optimizer.learning_rate': _FULL_RATE,
  'optimizer.decay_multipliers.fc10': 1.0,
  'num_epochs': 8.0,
  'schedule.drops': ((6, 0.1),),
}
# Longer than `configs/fine_tune.py`, as there is so little to see.
_FEW_PICTURES = {
  'batch_size': 50,
  'num_epochs': 100.0,
  'schedule.drops': ((75.0, 0.1),),
  'eval_every_epochs': 0.0,
  'checkpoint_every_epochs': 0.0,
}
EXPERIMENT = Experiment(
  name='fine_tuning',
  claim='Five classes of CIFAR-10, 50 pictures each, after the other five. '
  'Fine-tuning trains old layers at a tenth of the rate.',
  config='configs/fine_tune.py',
  variants={
    'fine-tuned': Variant(),
    'from scratch': Variant({'init_from': ''}),
    'from scratch at the full rate': Variant(
      {
        'init_from': '',
        'optimizer.learning_rate': _FULL_RATE,
        'optimizer.rate_multipliers.fc10': 1.0,
      }
    ),
  },
  data='cifar10',
)


def _write_folder(
  folder: pathlib.Path, half: str, per_class: int | None, seed: int
) -> str:
  """Writes half of the classes as PNG files; returns their name as data.

  Args:
    folder: Folder to write, unless it exists.
    half: 'first' or 'other'.
    per_class: Number of training pictures of each class, or None for all.
    seed: Seed that draws them.
  """
  if not folder.exists():
    partial = folder.with_suffix('.partial')
    shutil.rmtree(partial, ignore_errors=True)
    _write_split(partial / 'train', 'train', half, per_class, seed)
    _write_split(partial / 'validation', 'test', half, None, seed)
    partial.rename(folder)
  return f'folder={folder}'


def _write_split(
  folder: pathlib.Path, split: str, half: str, per_class: int | None, seed: int
) -> None:
  import numpy as np

  data, info = tfds.load(
    'cifar10',
    data_dir=_FLAGS.tfds_dir,
    split=split,
    batch_size=-1,
    with_info=True,
  )
  labels = data['label'].numpy()
  for label in _HALVES[half]:
    rows = np.flatnonzero(labels == label)
    rows = np.random.default_rng([seed, label]).permutation(rows)[:per_class]
    class_folder = folder / info.features['label'].int2str(label)
    class_folder.mkdir(parents=True)
    for row in rows:
      encoded = tf.io.encode_png(data['image'][row]).numpy()
      (class_folder / f'{row:05}.png').write_bytes(encoded)


def pretraining(workdir: pathlib.Path, seed: int) -> runner.Run:
  """Returns the run that learns the first five classes."""
  data = _write_folder(workdir / 'first', 'first', None, 0)
  directory = workdir / 'pretrained' / f'seed-{seed}'
  fields = {'data.dir': workdir / 'data', **_PRETRAINING, **program.overrides()}
  config = f'configs/cifar10.py:{data}'
  return runner.create_run('pretrained', seed, directory, config, fields)


def comparison(workdir: pathlib.Path, origin: runner.Run) -> list[runner.Run]:
  """Returns the runs that learn the other five classes, one for each variant.

  Args:
    workdir: Directory of all runs.
    origin: Run that has learned the first five classes.
  """
  seed, overrides = origin.seed, program.overrides()
  common = {'data.dir': workdir / 'data', **_FEW_PICTURES}
  data = _write_folder(workdir / f'other-{seed}', 'other', _PER_CLASS, seed)
  return [
    runner.create_run(
      name,
      seed,
      workdir / name / f'seed-{seed}',
      f'{EXPERIMENT.config}:{origin.workdir}:{data}',
      {**common, **variant.overrides, **overrides},
    )
    for name, variant in EXPERIMENT.variants.items()
  ]


def main(_) -> None:
  """Trains on the first five classes, then on the other five."""
  if _FLAGS.results:
    rows = program.read_results(program.as_result)
    program.rewrite(*program.create_table(EXPERIMENT, rows))
    return
  workdir = program.workdir()
  seeds = program.seeds() or EXPERIMENT.seeds
  origins = [pretraining(workdir, seed) for seed in seeds]
  for result in program.execute_all(origins):
    if result['status'] == 'failed':
      raise errors.UserError(f'Pretraining failed: {result["reason"]}')
  runs = [run for origin in origins for run in comparison(workdir, origin)]
  program.finish(EXPERIMENT, runs, program.execute_all(runs))


def _define_flags() -> None:
  program.define_flags()
  flags.DEFINE_string('tfds_dir', None, 'Folder where TFDS keeps CIFAR-10.')


if __name__ == '__main__':
  command_line.run(main, _define_flags)
