"""Draws the first layer's kernels by tower (paper, Figure 3).

python -m experiments.kernels --workdir=runs/alexnet --output=kernels.png
"""

from matplotlib import figure

from alexnet_jax import trained
from alexnet_jax.figures import kernels
from experiments import figure_program


def _draw(run: trained.Trained) -> figure.Figure:
  return kernels.draw(run)


if __name__ == '__main__':
  figure_program.run(_draw, 'kernels.png')
