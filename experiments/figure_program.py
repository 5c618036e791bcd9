"""What the programs that draw a run's figures share."""

import functools
import pathlib
from collections.abc import Callable

from matplotlib import figure

from alexnet_jax import command_line, compilation_cache, errors, trained
from alexnet_jax.figures import picture
from experiments import network_flags


def run(
  draw: Callable[..., figure.Figure],
  default: str,
  *,
  takes_arguments: bool = False,
) -> None:
  """A program that loads --workdir, draws it and writes --output.

  Args:
    draw: of the run and the arguments that are no flags.
    default: what --output is where it is not given.
    takes_arguments: whether there may be any.
  """
  main = functools.partial(_main, draw, default)
  command_line.run(main, takes_arguments=takes_arguments)


def _main(
  draw: Callable[..., figure.Figure], default: str, arguments: list[str]
) -> None:
  if not network_flags.WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  output = pathlib.Path(network_flags.OUTPUT.value or default)
  picture.check_path(output)
  compilation_cache.enable()
  views = {'eval.views': int(network_flags.VIEWS.value)}
  overrides = network_flags.data_overrides() | views
  loaded = trained.load(network_flags.WORKDIR.value, overrides)
  picture.write(draw(loaded, *arguments), output)
  print(output)
