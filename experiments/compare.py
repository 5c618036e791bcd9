"""Compares runs: their curves in one figure, errors and settings in tables.

    python -m experiments.compare runs/relu runs/tanh --output=compare

Writes compare.png and compare.md, which is printed as well: last and best
errors of each run, and the fields of their configs that differ.
"""

import pathlib

from alexnet_jax import command_line, errors
from alexnet_jax.analysis import comparison
from alexnet_jax.figures import curves, picture
from experiments import network_flags


def main(arguments: list[str]) -> None:
  """Writes both; no checkpoint is needed."""
  network_flags.refuse('workdir', 'views', 'batch_size', *network_flags.DATA)
  if not arguments:
    raise errors.UserError('no runs; give their workdirs, as DIR DIR.')
  paths = [pathlib.Path(name).expanduser() for name in arguments]
  workdirs = comparison.labels(paths)
  text = comparison.markdown(workdirs)
  output = pathlib.Path(network_flags.OUTPUT.value or 'compare')
  picture.write(curves.draw(workdirs), output.with_name(f'{output.name}.png'))
  output.with_name(f'{output.name}.md').write_text(text)
  print(text)


if __name__ == '__main__':
  command_line.run(main, takes_arguments=True)
