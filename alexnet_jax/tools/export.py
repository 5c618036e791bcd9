r"""Writes a trained network for other programs.

    python -m alexnet_jax.tools.export --workdir=runs/alexnet \
        --output=alexnet.safetensors
    python -m alexnet_jax.tools.export --workdir=runs/alexnet@9000 --views=1 \
        --output=alexnet.stablehlo
    python -m alexnet_jax.tools.export --workdir=runs/alexnet --output=small/

A .safetensors file is a state_dict of the same network in PyTorch; norms and
pools are those of the run's config. With --names=caffe, its first layer reads
blue, green, red. VGG, ResNet and EfficientNet need --names=torchvision.

A .stablehlo file is a function with weights and preprocessing inside. It turns
whole images [b, S, S, 3] of uint8 into probabilities [b, classes], averaged
over --views, and needs nothing but JAX:

    jax.export.deserialize(open('alexnet.stablehlo', 'rb').read()).call(images)

Beside it, alexnet.stablehlo.json has class names, image size, step and views.

An output without a suffix is a directory, a small run: whatever reads a workdir
reads it, and --config.init_from starts from it. Its one checkpoint has weights
in float16 and no velocities, a quarter of the size. Networks that ship with the
package, pretrained:NAME, were made so.
"""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, paths, train_step, trained
from alexnet_jax.tools import flags as tool_flags
from alexnet_jax.weights import torch_layout, torchvision, weight_files
from alexnet_jax.workdir import checkpoints

# Files of a workdir that belong to a small run.
_FILES = (
  'preprocessing.npz',
  'class_names.txt',
  'metrics.jsonl',
  'environment.json',
  'config.json',
)
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export_weights(
  run: trained.TrainedRun, path: pathlib.Path, names: str
) -> None:
  """Writes the state_dict of the same network in PyTorch, with metadata.

  Args:
    run: Run on one device.
    path: A .safetensors file.
    names: 'plain' (conv1.weight), 'torchvision' (features.0.weight), or
      'caffe', which is plain with inputs of blue, green, red.

  Raises:
    UserError: If a layer has no counterpart in PyTorch, or no such name.
  """
  order = 'BGR' if names == 'caffe' else 'RGB'
  if run.config.model.name == 'alexnet':
    params = jax.device_get(run.params)
    arrays = torch_layout.to_torch(run.config, params, order)
    if names == 'torchvision':
      arrays = torch_layout.to_torchvision_names(arrays)
  else:
    arrays = _torchvision_arrays(run, names)
  inputs = run.preprocessing
  metadata = {
    'channel_order': order,
    # Means of channels, in place of a mean image.
    'mean': inputs.mean_image.mean((0, 1), np.float64).tolist(),
    'scale': np.broadcast_to(inputs.scale, 3).tolist(),
    'crop_size': int(inputs.crop_size),
    'class_names': run.class_names,
  }
  weight_files.write(path, arrays, metadata)


def _torchvision_arrays(
  run: trained.TrainedRun, names: str
) -> dict[str, np.ndarray]:
  """Returns the weights of a network that is no AlexNet."""
  model, variables = run.config.model, jax.device_get(run.variables)
  arrays = torchvision.from_variables(model, variables)
  if names != 'torchvision':
    raise errors.UserError(
      f'names={names} is for AlexNets and model.name={model.name}; give '
      '--names=torchvision.'
    )
  return arrays


def export_program(run: trained.TrainedRun, path: pathlib.Path) -> None:
  """Writes a function from images to probabilities, and what describes it.

  Args:
    run: Run on one device; its `eval.views` are averaged.
    path: A .stablehlo file.
  """
  from jax import export

  config = run.config
  log_probabilities = functools.partial(
    train_step.predict,
    jax.device_get(run.variables),
    model=train_step.create_model(config),
    preprocess=run.preprocessing,
    num_views=config.eval.views,
  )
  size = config.data.image_size
  (count,) = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
  program = jax.jit(lambda images: jnp.exp(log_probabilities(images)))
  exported = export.export(program, platforms=_PLATFORMS)(images)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(exported.serialize())
  about = {
    'class_names': run.class_names,
    'image_size': size,
    'step': run.step,
    'views': config.eval.views,
  }
  path.with_name(f'{path.name}.json').write_text(json.dumps(about) + '\n')


def export_run(run: trained.TrainedRun, directory: pathlib.Path) -> None:
  """Writes a small run, see above.

  Args:
    run: Run on one device.
    directory: Absolute path of a directory that is empty or does not exist.

  Raises:
    UserError: If the directory is in use, or float16 cannot hold the weights.
  """
  if directory.exists() and any(directory.iterdir()):
    raise errors.UserError(
      f'--output={directory} is in use; give a new directory.'
    )
  directory.mkdir(parents=True, exist_ok=True)
  extra = {'preprocessing': run.preprocessing.digest()}
  variables = jax.device_get(run.variables)
  checkpoints.write_weights(directory, run.step, variables, extra)
  for name in _FILES:  # config.json last: it says that there is a run
    if (run.workdir / name).exists():
      shutil.copy(run.workdir / name, directory)


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_views()
  tool_flags.define_output(
    None, 'A .safetensors or .stablehlo file, or a directory.'
  )
  flags.DEFINE_enum(
    'names',
    'plain',
    ['plain', 'torchvision', 'caffe'],
    'Names of the weights; with caffe, inputs are blue, green, red.',
  )


def main(_) -> None:
  """Exports the run that the flags name."""
  given = flags.FLAGS
  if not given.output:
    raise errors.UserError('--output is missing; give a path.')
  output = paths.local('--output', given.output)
  if output.suffix:
    weight_files.check_suffix('output', output, ('.safetensors', '.stablehlo'))
  run = tool_flags.load_run(num_devices=1)
  if not output.suffix:
    export_run(run, output)
  elif output.suffix == '.stablehlo':
    export_program(run, output)
  else:
    export_weights(run, output, given.names)
  print(f'{output} has step {run.step} of {run.workdir}.')


if __name__ == '__main__':
  command_line.run(main, define_flags)
