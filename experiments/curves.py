"""Draws a run's learning curves (paper, Figure 1).

python -m experiments.curves --workdir=runs/alexnet --output=curves.png
python -m experiments.curves --workdir=runs/alexnet --training_error_only
"""

import pathlib

from absl import app, flags
from matplotlib import figure

from alexnet_jax import command_line, errors
from alexnet_jax.figures import curves, picture
from experiments import network_flags

_TRAINING_ERROR_ONLY = flags.DEFINE_bool(
  'training_error_only', False, "The paper's Figure 1."
)


def _draw() -> figure.Figure:
  if not network_flags.WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  workdir = pathlib.Path(network_flags.WORKDIR.value).expanduser()
  return curves.draw(
    {workdir.name: workdir}, training_error_only=_TRAINING_ERROR_ONLY.value
  )


def main(_) -> None:
  """Writes the picture; no checkpoint is needed."""
  with command_line.one_sentence():
    output = pathlib.Path(network_flags.OUTPUT.value or 'curves.png')
    picture.check_path(output)
    picture.write(_draw(), output)
    print(output)


if __name__ == '__main__':
  app.run(main)
