r"""Makes a run of published weights, to evaluate, predict or fine-tune.

    python -m alexnet_jax.tools.import_weights \
        --config=configs/torchvision_alexnet.py --inputs=torchvision \
        --weights=alexnet.safetensors --workdir=runs/torchvision
    python -m alexnet_jax.tools.import_weights \
        --config=configs/bvlc_alexnet.py --inputs=caffe \
        --weights=bvlc_alexnet.caffemodel --mean=imagenet_mean.binaryproto \
        --workdir=runs/bvlc_alexnet

    python -m alexnet_jax.tools.import_weights --inputs=torchvision \
        --config=configs/resnet50.py --weights=resnet50.safetensors \
        --workdir=runs/resnet50

The config is the network's; the number of classes follows from the weights, and
1000 classes are ImageNet's. --inputs names whose channel means and channel
order the network was trained with; files of `alexnet_jax.tools.export` say that
themselves. The run is at step 0 and works like any other:

    python -m alexnet_jax.tools.predict --workdir=runs/torchvision cat.jpg
    python main.py --mode=eval --workdir=runs/torchvision

Pictures are resized as for every run here (`data.images.resize_and_crop`):
torchvision interpolates linearly, Caffe's scripts squeeze them into a square.
"""

import collections
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, errors, paths, validate
from alexnet_jax.data import ilsvrc, preprocessing, records
from alexnet_jax.train_step import create_train_state
from alexnet_jax.weights import (
  caffe,
  torch_layout,
  torchvision,
  weight_files,
)
from alexnet_jax.workdir import checkpoints, files

# Means of ImageNet's red, green and blue, 0-255, and what the first layer reads
# (TV references/classification; CAFFE, examples of pycaffe).
_INPUTS = {
  'torchvision': {
    'mean': (0.485 * 255, 0.456 * 255, 0.406 * 255),
    'channel_order': 'RGB',
  },
  'caffe': {
    'mean': (122.67891434, 116.66876762, 104.00698793),
    'channel_order': 'BGR',
  },
}
# Principal components of ImageNet's colours, largest first: standard deviations
# (0-255) and vectors, one a column (CC2 make-data/input_meta).
_COLOR_STDS = np.array([121.7801, 37.0939, 19.7208], np.float32)
_COLOR_VECTORS = np.array(
  [
    [-0.56351, -0.71258, 0.41796],
    [-0.57618, -0.02354, -0.81698],
    [-0.59200, 0.70120, 0.39731],
  ],
  np.float32,
)


def import_run(
  config: ml_collections.ConfigDict,
  weights: pathlib.Path,
  workdir: pathlib.Path,
  *,
  inputs: str | None = None,
  mean: np.ndarray | None = None,
  names: list[str] | None = None,
) -> None:
  """Writes a workdir with a checkpoint of step 0.

  Args:
    config: Config of the network; its `num_classes` follows from the weights.
    weights: A file, see `weight_files`. Layers have the config's names or
      torchvision's.
    workdir: Absolute path of a directory that is empty or does not exist.
    inputs: 'torchvision' or 'caffe'; None for a file whose metadata say how
      pixels become inputs.
    mean: Mean image [S, S, 3] in RGB, 0-255, in place of the means of channels.
    names: Names of the classes; None for those of the metadata, ImageNet's
      wnids for 1000 classes, or else 'class 0', 'class 1', ...

  Raises:
    UserError: If weights, config, mean and names do not fit each other, or the
      workdir is in use.
  """
  _check_unused(workdir)
  arrays, metadata = weight_files.read(weights)
  _check_crop_size(weights, metadata, config.data.crop_size)
  told = _INPUTS[inputs] if inputs else metadata
  if not told:
    raise errors.UserError(
      f'--inputs is missing, and weights={weights} do not say how pixels '
      f'become inputs; give one of {", ".join(_INPUTS)}.'
    )
  config, variables = _read_variables(config, arrays, told)
  names = names or metadata.get('class_names') or _default_names(config)
  _check_names(names, config.model.num_classes)
  mean = told['mean'] if mean is None else mean
  preprocess = _create_preprocessing(config.data, mean)

  workdir.mkdir(parents=True, exist_ok=True)
  files.write_inputs(workdir, preprocess, names)
  state = create_train_state(config).replace(**variables)
  with checkpoints.Checkpointer(workdir) as checkpointer:
    checkpointer.save(0, state, {'preprocessing': preprocess.digest()})
  origin = {'file': str(weights), 'sha256': records.sha256(weights)}
  files.write_config(workdir, config, {'imported': origin})


def _check_unused(workdir: pathlib.Path) -> None:
  if workdir.exists() and any(workdir.iterdir()):
    raise errors.UserError(
      f'workdir={workdir} is in use; give a new directory.'
    )


def _check_crop_size(
  weights: pathlib.Path, metadata: dict[str, Any], crop_size: int
) -> None:
  if metadata.get('crop_size', crop_size) != crop_size:
    raise errors.UserError(
      f'weights={weights} were trained with crops of {metadata["crop_size"]} '
      f'pixels but the config takes {crop_size}; give the config that they '
      'were exported from.'
    )


def _read_variables(
  config: ml_collections.ConfigDict,
  arrays: weight_files.Arrays,
  told: dict[str, Any],
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
  """Returns the weights, and the config with their classes and scale."""
  config = config.copy_and_resolve_references()
  is_alexnet = config.model.name == 'alexnet'
  if is_alexnet:
    arrays = torch_layout.from_torchvision_names(arrays)
    head = arrays.get(f'{config.model.layers[-1]}.bias')
    count = None if head is None else head.size
  else:
    count = torchvision.num_classes(config.model, arrays)
  config.model.num_classes = count or config.model.num_classes
  if 'scale' in told:
    with config.data.ignore_type():
      config.data.scale = told['scale']
  validate.check_config(config)
  if is_alexnet:
    params = torch_layout.from_torch(config, arrays, told['channel_order'])
    return config, {'params': params}
  return config, torchvision.from_torchvision(config, arrays)


def _default_names(config: ml_collections.ConfigDict) -> list[str]:
  imagenet, count = list(ilsvrc.class_names()), config.model.num_classes
  if count == len(imagenet):
    return imagenet
  return [f'class {i}' for i in range(count)]


def _check_names(names: list[str], count: int) -> None:
  if len(names) != count:
    raise errors.UserError(
      f'class_names has {len(names)} lines for {count} classes; give one line '
      'for each class.'
    )
  for name, times in collections.Counter(names).items():
    # Half of a surrogate pair cannot be written.
    is_text = name.encode(errors='replace').decode() == name
    if times > 1 or name.splitlines() != [name] or not is_text:
      raise errors.UserError(
        f'class_names has {name!r} twice, or not as one line; give each class '
        'a name of its own.'
      )


def _create_preprocessing(
  data: ml_collections.ConfigDict, mean: Any
) -> preprocessing.Preprocessing:
  size, mean = data.image_size, np.asarray(mean, np.float32)
  if mean.shape not in ((3,), (size, size, 3)):
    raise errors.UserError(
      f'mean is an image {list(mean.shape)}, not {[size, size, 3]}; give the '
      "mean of the network's own training images."
    )
  if not np.isfinite(mean).all():
    raise errors.UserError(
      "mean has numbers that are not finite; give the mean of the network's "
      'own training images.'
    )
  return preprocessing.Preprocessing(
    mean_image=np.broadcast_to(mean, (size, size, 3)),
    eigenvalues=_COLOR_STDS**2,
    eigenvectors=_COLOR_VECTORS,
    scale=np.asarray(data.scale, np.float32),
    crop_size=np.int32(data.crop_size),
  )


def define_flags() -> None:
  """Defines the flags of this tool."""
  config_flags.DEFINE_config_file(
    'config', help_string='A file of configs/, the network of the weights.'
  )
  flags.DEFINE_string(
    'weights', None, 'A file of weights, .safetensors or .caffemodel.'
  )
  flags.DEFINE_string('workdir', None, 'A new directory for the run.')
  flags.DEFINE_enum(
    'inputs', None, list(_INPUTS), 'Whose channel means and channel order.'
  )
  flags.DEFINE_string(
    'mean', None, "Caffe's mean image (.binaryproto), for means of channels."
  )
  flags.DEFINE_string('class_names', None, 'A file of class names, one a line.')


def _read_names(path: str) -> list[str]:
  try:
    return paths.local('--class_names', path).read_text('utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'--class_names={path} is no text in UTF-8; give another file.'
    ) from error


def main(_) -> None:
  """Imports the weights that the flags name."""
  given = flags.FLAGS
  for name in ('config', 'weights', 'workdir'):
    if not given[name].value:
      raise errors.UserError(f'--{name} is missing; give a path.')
  command_line.set_up_jax()
  workdir = paths.for_checkpoints('--workdir', given.workdir)
  mean = given.mean and caffe.read_mean(paths.local('--mean', given.mean))
  import_run(
    given.config,
    paths.local('--weights', given.weights),
    workdir,
    inputs=given.inputs,
    mean=mean,
    names=_read_names(given.class_names) if given.class_names else None,
  )
  print(f'{workdir} is a run, at step 0.')


if __name__ == '__main__':
  command_line.run(main, define_flags)
