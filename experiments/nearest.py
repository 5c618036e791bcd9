r"""Draws images with the nearest training images (paper, Figure 4, right).

    python -m experiments.nearest --workdir=runs/alexnet --output=nearest.png \
        --features=train.npy
    python -m experiments.nearest --workdir=runs/alexnet \
        --features=train.npy cat.jpg holiday/

Queries are validation images drawn by --seed, or the files, folders and `-`
(see experiments.predict) that are given as arguments. Distances are Euclidean,
between what the last hidden layer, or --layer, makes of centre patches. With
--features, the training set's are kept in a file (4 bytes each: 21 GB for
ImageNet's 1.28 million times 4096), and the next query does not compute them
again.
"""

import pathlib

from absl import flags
from matplotlib import figure

from alexnet_jax import predict, trained
from alexnet_jax.analysis import retrieval
from alexnet_jax.figures import neighbours
from experiments import figure_program, network_flags

_COUNT = flags.DEFINE_integer(
  'count', 6, 'How many validation images.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Chooses them.', lower_bound=0)
_NEIGHBOURS = flags.DEFINE_integer(
  'neighbours', 6, 'How many of each.', lower_bound=1
)
_LAYER = flags.DEFINE_string(
  'layer', '', 'Whose output to compare; by default the last hidden layer.'
)
_FEATURES = flags.DEFINE_string(
  'features', None, 'A .npy file that keeps the features.'
)


def _draw(run: trained.Trained, *arguments: str) -> figure.Figure:
  prepared = run.open_data()
  if arguments:
    queries = neighbours.read(run, list(predict.find(arguments)))
  else:
    queries = neighbours.choose(
      run, prepared, count=_COUNT.value, seed=_SEED.value
    )
  found = retrieval.nearest(
    run,
    prepared,
    queries.images,
    count=_NEIGHBOURS.value,
    layer=_LAYER.value,
    batch_size=network_flags.BATCH_SIZE.value,
    path=pathlib.Path(_FEATURES.value) if _FEATURES.value else None,
  )
  return neighbours.draw(run, prepared, queries, found)


if __name__ == '__main__':
  figure_program.run(_draw, 'nearest.png', takes_arguments=True)
