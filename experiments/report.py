r"""Puts a run on one page: a single HTML file that asks nothing of the network.

    python -m experiments.report --workdir=runs/alexnet --output=report.html

Errors, learning curves, confusion, kernels, predictions, nearest training
images, what excites the last convolution, config and environment. The last two
of the figures run the network on the whole training set: on a CPU, ImageNet's
takes hours, and --parts leaves parts out.
"""

import pathlib

from absl import flags

from alexnet_jax import command_line, compilation_cache, errors
from alexnet_jax.report import page, parts
from experiments import network_flags

_PARTS = flags.DEFINE_list(
  'parts', list(parts.PARTS), 'What to show, beside errors and config.'
)
_DEFAULT_OUTPUT = 'report.html'


def main(_) -> None:
  """Does what the flags say."""
  if not network_flags.WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  for name in _PARTS.value:
    if name not in parts.PARTS:
      raise errors.UserError(
        f'--parts={name} does not exist; choose from {", ".join(parts.PARTS)}.'
      )
  compilation_cache.enable()
  views = {'eval.views': int(network_flags.VIEWS.value)}
  text = page.create(
    network_flags.WORKDIR.value,
    network_flags.data_overrides() | views,
    batch_size=network_flags.BATCH_SIZE.value,
    wanted=_PARTS.value,
  )
  output = pathlib.Path(network_flags.OUTPUT.value or _DEFAULT_OUTPUT)
  output.parent.mkdir(parents=True, exist_ok=True)
  output.write_text(text)
  print(output)


if __name__ == '__main__':
  command_line.run(main)
