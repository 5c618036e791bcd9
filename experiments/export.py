r"""Hands a trained network to other programs.

    python -m experiments.export --workdir=runs/alexnet \
        --output=alexnet.safetensors
    python -m experiments.export --workdir=runs/alexnet@9000 --views=1 \
        --output=alexnet.stablehlo

.safetensors and .pth (which needs PyTorch) are a state_dict of the same network
in PyTorch; .stablehlo is a function from pictures to probabilities, averaged
over --views, that needs nothing but JAX.
"""

import pathlib

from absl import flags

from alexnet_jax import command_line, errors, trained
from alexnet_jax.weights import publish, weight_files
from experiments import network_flags

_NAMES = flags.DEFINE_enum(
  'names',
  'plain',
  ['plain', 'torchvision', 'caffe'],
  'Of weights; with caffe, inputs are BGR.',
)


def _check_flags() -> None:
  network_flags.refuse('batch_size', *network_flags.DATA)
  for flag in (network_flags.WORKDIR, network_flags.OUTPUT):
    if not flag.value:
      raise errors.UserError(f'--{flag.name} is missing; give a path.')


def main(_) -> None:
  """Does what the flags say."""
  _check_flags()
  output = pathlib.Path(network_flags.OUTPUT.value).expanduser()
  formats = (*weight_files.WRITABLE, publish.PROGRAM)
  weight_files.check_suffix('output', output, formats)
  views = int(network_flags.VIEWS.value)
  overrides = {'num_devices': 1, 'eval.views': views}
  run = trained.load(network_flags.WORKDIR.value, overrides)
  if output.suffix == publish.PROGRAM:
    publish.export_program(run, output)
  else:
    publish.export_weights(run, output, _NAMES.value)
  print(f'{output} has step {run.step} of {run.workdir}.')


if __name__ == '__main__':
  command_line.run(main)
