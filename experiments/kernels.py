"""Draws the first layer's kernels by tower (paper, Figure 3).

python -m experiments.kernels --workdir=runs/alexnet --output=kernels.png
"""

import functools

from absl import app
from matplotlib import figure

from alexnet_jax import trained
from alexnet_jax.figures import kernels
from experiments import figure_program


def _draw(run: trained.Trained, arguments: list[str]) -> figure.Figure:
  figure_program.no_arguments(arguments)
  return kernels.draw(run)


if __name__ == '__main__':
  app.run(functools.partial(figure_program.main, _draw, 'kernels.png'))
