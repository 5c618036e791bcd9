"""Draws validation images with the five most likely classes (Figure 4, left).

    python -m experiments.classify --workdir=runs/alexnet --output=classify.png
    python -m experiments.classify --workdir=runs/alexnet --only_wrong --seed=1

The bar of the true class, which stands under the image, is orange.
"""

from absl import flags
from matplotlib import figure

from alexnet_jax import errors, trained
from alexnet_jax.figures import predictions
from experiments import figure_program, network_flags

_COUNT = flags.DEFINE_integer('count', 8, 'How many images.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Chooses them.', lower_bound=0)
_ONLY_WRONG = flags.DEFINE_bool(
  'only_wrong', False, 'Whether to leave out what is classified correctly.'
)


def _draw(run: trained.Trained) -> figure.Figure:
  examples = predictions.choose(
    run,
    run.open_data(),
    count=_COUNT.value,
    seed=_SEED.value,
    only_wrong=_ONLY_WRONG.value,
    batch_size=network_flags.BATCH_SIZE.value,
  )
  if not examples:
    raise errors.UserError(
      '--only_wrong leaves no image: all are classified correctly; leave it '
      'out.'
    )
  return predictions.draw(run, examples)


if __name__ == '__main__':
  figure_program.run(_draw, 'classify.png')
