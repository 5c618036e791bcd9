r"""The recipe for pictures of one's own, beside the paper's and that of 2012.

    python -m experiments.own_pictures --workdir=runs/own \
        --data=folder=/my/imagenette
    python -m experiments.own_pictures --workdir=runs/own_cifar10 --data=cifar10
    python -m experiments.own_pictures --workdir=runs/own_few \
        --data=folder=/my/imagenette --few=20 --seeds=5

All networks have half of AlexNet's width, get pictures of at most 128 pixels,
and train for as long as `configs/alexnet_today.py` does: 30 epochs of at least
50 steps. The paper's recipe lowers its rate when the validation error stops
improving. The drops of 2012 come at the same shares of the run as they did.

With --few=N, each seed draws N training pictures of every class, and 50 others
for validation.
"""

import pathlib
import shutil

import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, paths
from alexnet_jax.data import sources
from experiments.sweeps import experiment, program
from experiments.sweeps.experiment import Experiment, Variant

_FLAGS = flags.FLAGS
_HELD_OUT = 50
_WIDTHS = {
  'conv1': 24,
  'conv2': 64,
  'conv3': 96,
  'conv4': 96,
  'conv5': 64,
  'fc6': 1024,
  'fc7': 1024,
}
EXPERIMENT = Experiment(
  name='own_pictures',
  claim='A recipe that needs no tuning learns on sets of any size, and is at '
  'least as good as those of the paper and of its source.',
  config='configs/alexnet_today.py',
  variants={
    'alexnet_today': Variant(),
    'alexnet': Variant(config='configs/alexnet.py'),
    'alexnet_2012': Variant(
      {
        'schedule.drops': ((8, 0.1), (17, 0.1), (26, 0.1)),
        'schedule.layer_drops.conv1': ((22, 0.1), (24, 0.0)),
        'data.color_noise_epochs': 22.0,
      },
      config='configs/alexnet_2012.py',
    ),
  },
  overrides={
    **{f'model.{name}.features': width for name, width in _WIDTHS.items()},
    'num_epochs': 30.0,
    'min_epoch_steps': 50,
  },
  data='',
  small={'cifar10': {}},
  pictures={'data.image_size': 128, 'data.crop_size': 112},
)


def draw(
  folder: pathlib.Path, target: pathlib.Path, count: int, seed: int
) -> None:
  """Makes a folder of links to a few pictures of each class.

  Args:
    folder: Folder with a folder for each class, or such folders in train/.
    target: Folder to make, unless it exists.
    count: Number of training pictures of each class.
    seed: Seed that draws them.

  Raises:
    UserError: If a class has too few pictures.
  """
  root = folder / 'train' if (folder / 'train').is_dir() else folder
  if target.exists():
    return
  partial = target.with_suffix('.partial')
  shutil.rmtree(partial, ignore_errors=True)
  for number, own in enumerate(
    sorted(filter(pathlib.Path.is_dir, root.iterdir()))
  ):
    found = sources.find_images(own)
    if len(found) < count + _HELD_OUT:
      raise errors.UserError(
        f'--few={count}: {own} has {len(found)} pictures; a class needs '
        f'{count + _HELD_OUT}, because {_HELD_OUT} are for validation.'
      )
    order = np.random.default_rng([seed, number]).permutation(len(found))
    for place, row in enumerate(order[: count + _HELD_OUT]):
      split = 'train' if place < count else 'validation'
      link = partial / split / own.name / f'{place:04}{found[row].suffix}'
      link.parent.mkdir(parents=True, exist_ok=True)
      link.symlink_to(found[row])
  partial.rename(target)


def _data(workdir: pathlib.Path, seed: int) -> str:
  """Returns the name of the data that a seed trains on."""
  if not _FLAGS.few:
    return _FLAGS.data
  target = workdir / f'few-{_FLAGS.few}-{seed}'
  folder = paths.local('--data', _FLAGS.data.removeprefix('folder='))
  draw(folder, target, _FLAGS.few, seed)
  return f'folder={target}'


def main(_) -> None:
  """Trains all recipes with all seeds."""
  if not _FLAGS.data:
    raise errors.UserError('--data is missing; give folder=PATH or cifar10.')
  if _FLAGS.results:
    rows = program.read_results(program.as_result)
    program.rewrite(*program.create_table(EXPERIMENT, rows, _FLAGS.data))
    return
  workdir = program.workdir()
  overrides = {'data.dir': workdir / 'data', **program.overrides()}
  runs = [
    run
    for seed in program.seeds() or EXPERIMENT.seeds
    for run in experiment.plan(
      EXPERIMENT,
      workdir,
      data=_data(workdir, seed),
      seeds=(seed,),
      overrides=overrides,
    )
  ]
  program.finish(EXPERIMENT, runs, program.execute_all(runs), _FLAGS.data)


def _define_flags() -> None:
  program.define_flags()
  program.define_data_flag()
  flags.DEFINE_integer(
    'few', 0, 'Training pictures of each class; 0 for all.', lower_bound=0
  )


if __name__ == '__main__':
  command_line.run(main, _define_flags)
