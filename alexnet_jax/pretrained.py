"""Makes a run of weights that were trained elsewhere."""

import pathlib

import ml_collections
import numpy as np

from alexnet_jax import (
  checkpoint,
  convert,
  errors,
  train_state,
  validate,
  weight_files,
)
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import class_names, preprocessing, records

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
# Caffe's means of ImageNet's channels, RGB, 0-255 (CAFFE, pycaffe's examples).
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)


def import_run(
  config: ml_collections.ConfigDict,
  weights: pathlib.Path,
  workdir: pathlib.Path,
  *,
  mean: np.ndarray,
  names: list[str] | None = None,
  channel_order: str = 'RGB',
) -> None:
  """Writes a workdir that evaluates and predicts like any run, at step 0.

  Args:
    config: of the network; its `num_classes` follows from the file.
    weights: a file, see `weight_files`; layers have the names of the config or
      torchvision's.
    workdir: absolute path, of nothing or an empty directory.
    mean: [3], or an image [S, S, 3]; RGB, 0-255.
    names: of classes, by label; None for ImageNet's wnids, or with other than
      1000 classes for 'class 0', 'class 1', ...
    channel_order: 'RGB' or 'BGR', what the first layer reads; a file that says
      so itself is believed.

  Raises:
    UserError: where weights, config, mean and names do not fit each other, or
      the workdir is in use.
  """
  _check_unused(workdir)
  config = config.copy_and_resolve_references()
  params = _read(config, weights, channel_order)
  names = names or _default_names(config.model.num_classes)
  _check_names(names, config.model.num_classes)
  process = _preprocessing(config.data, mean)

  workdir.mkdir(parents=True, exist_ok=True)
  workdir_lib.write_inputs(workdir, process, names)
  state = train_state.create_train_state(config).replace(params=params)
  with checkpoint.Checkpointer(workdir) as checkpointer:
    checkpointer.save(0, state, {'preprocessing': process.digest()})
  origin = {'file': str(weights), 'sha256': records.sha256(weights)}
  workdir_lib.write_config(workdir, config, {'imported': origin})


def _check_unused(workdir: pathlib.Path) -> None:
  if workdir.exists() and any(workdir.iterdir()):
    raise errors.UserError(
      f'workdir={workdir} is in use; give a new directory.'
    )


def _read(
  config: ml_collections.ConfigDict, path: pathlib.Path, channel_order: str
) -> convert.Tree:
  """The parameters; `config` gets the number of classes."""
  arrays, metadata = weight_files.read(path)
  arrays = convert.from_torchvision_names(arrays)
  classes = convert.count_classes(config, arrays)
  config.model.num_classes = classes or config.model.num_classes
  validate.check_config(config)
  order = metadata.get('channel_order', channel_order)
  return convert.from_torch(config, arrays, order)


def _default_names(count: int) -> list[str]:
  """Of `count` classes."""
  imagenet = list(class_names.imagenet())
  if count == len(imagenet):
    return imagenet
  return [f'class {i}' for i in range(count)]


def _check_names(names: list[str], count: int) -> None:
  if len(names) != count:
    raise errors.UserError(
      f'class_names has {len(names)} lines for {count} classes; give one a '
      'class.'
    )


def _preprocessing(
  data: ml_collections.ConfigDict, mean: np.ndarray
) -> preprocessing.Preprocessing:
  """As the weights were trained with; components of colour are ImageNet's."""
  size = data.image_size
  if mean.shape not in ((3,), (size, size, 3)):
    raise errors.UserError(
      f'mean is an image {list(mean.shape)}, not {[size, size, 3]}; give the '
      "mean of the network's own training images."
    )
  return preprocessing.Preprocessing(
    mean_image=np.broadcast_to(mean, (size, size, 3)).astype(np.float32),
    eigenvalues=_COLOR_STDS**2,
    eigenvectors=_COLOR_VECTORS,
    scale=np.asarray(data.scale, np.float32),
    crop_size=np.int32(data.crop_size),
  )
