"""Draws learning curves of a run, or of several (paper, Figure 1).

python -m experiments.curves --workdir=runs/alexnet --output=curves.png
python -m experiments.curves --training_error_only runs/relu runs/tanh
"""

import pathlib

from absl import flags
from matplotlib import figure

from alexnet_jax import command_line, errors
from alexnet_jax.figures import curves, picture
from experiments import network_flags

_TRAINING_ERROR_ONLY = flags.DEFINE_bool(
  'training_error_only', False, "The paper's Figure 1."
)


def _draw(workdirs: list[str]) -> figure.Figure:
  if not workdirs:
    raise errors.UserError(
      'no runs; give --workdir=DIR, or several as DIR DIR.'
    )
  paths = {name: pathlib.Path(name).expanduser() for name in workdirs}
  return curves.draw(paths, training_error_only=_TRAINING_ERROR_ONLY.value)


def main(arguments: list[str]) -> None:
  """Writes the picture; no checkpoint is needed."""
  network_flags.refuse('views', 'batch_size', *network_flags.DATA)
  output = pathlib.Path(network_flags.OUTPUT.value or 'curves.png')
  picture.check_path(output)
  given = [network_flags.WORKDIR.value] if network_flags.WORKDIR.value else []
  picture.write(_draw(given + arguments), output)
  print(output)


if __name__ == '__main__':
  command_line.run(main, takes_arguments=True)
