"""Makes a run of weights that were trained elsewhere.

Crops, means and scales are those that the weights were trained with. Pictures
are scaled and cut as for every run here (`data.images.resize_and_crop`):
torchvision interpolates linearly, Caffe's scripts squeeze them into a square.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from alexnet_jax import checkpoint, errors, train_state, validate
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import class_names, preprocessing, records
from alexnet_jax.weights import convert, publish, weight_files

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


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Somebody's network, as they feed it.

  Attributes:
    config: of the network; its `num_classes` follows from the weights.
    mean: [3], or an image [S, S, 3]; RGB, 0-255.
    channel_order: 'RGB' or 'BGR', what the first layer reads.
  """

  config: ml_collections.ConfigDict
  mean: Sequence[float] | np.ndarray
  channel_order: str = 'RGB'


def import_run(
  architecture: Architecture,
  weights: pathlib.Path,
  workdir: pathlib.Path,
  *,
  mean: np.ndarray | None = None,
  names: list[str] | None = None,
  channel_order: str | None = None,
) -> None:
  """Writes a workdir that evaluates and predicts like any run, at step 0.

  What is not given is taken from the file's metadata, where it is one that
  `publish` has written, and else from the architecture; crops must be alike.

  Args:
    architecture: what the weights belong to.
    weights: a file, see `weight_files`; layers have the names of the config or
      torchvision's.
    workdir: absolute path, of nothing or an empty directory.
    mean: [3], or an image [S, S, 3]; RGB, 0-255.
    names: of classes, by label; without any, ImageNet's wnids, or with other
      than 1000 classes 'class 0', 'class 1', ...
    channel_order: 'RGB' or 'BGR', what the first layer reads.

  Raises:
    UserError: where weights, config, mean and names do not fit each other, or
      the workdir is in use.
  """
  _check_unused(workdir)
  arrays, metadata = weight_files.read(weights)
  told = publish.read_metadata(metadata)
  config = architecture.config.copy_and_resolve_references()
  if 'scale' in told:
    with config.data.ignore_type():
      config.data.scale = told['scale']
  _check_crop_size(weights, told, config.data.crop_size)
  order = channel_order or told.get('channel_order')
  params = _convert(config, arrays, order or architecture.channel_order)
  names = names or told.get('class_names')
  names = names or _default_names(config.model.num_classes)
  _check_names(names, config.model.num_classes)
  if mean is None:
    mean = told.get('mean', architecture.mean)
  process = _preprocessing(config.data, np.asarray(mean))

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


def _check_crop_size(
  weights: pathlib.Path, told: dict[str, Any], crop_size: int
) -> None:
  if told.get('crop_size', crop_size) != crop_size:
    raise errors.UserError(
      f'weights={weights} were trained with crops of {told["crop_size"]} '
      f'pixels but the architecture takes {crop_size}; give the architecture '
      'that they were exported from.'
    )


def _convert(
  config: ml_collections.ConfigDict,
  arrays: weight_files.Arrays,
  channel_order: str,
) -> convert.Tree:
  """The parameters; `config` gets the number of classes."""
  arrays = convert.from_torchvision_names(arrays)
  classes = convert.count_classes(config, arrays)
  config.model.num_classes = classes or config.model.num_classes
  validate.check_config(config)
  return convert.from_torch(config, arrays, channel_order)


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
  seen = set()
  for name in names:
    if name in seen or name.splitlines() != [name] or not _is_text(name):
      raise errors.UserError(
        f'class_names has {name!r} twice, or not as one line; give each class '
        'a name of its own.'
      )
    seen.add(name)


def _is_text(name: str) -> bool:
  """Whether it can be written: half of a surrogate pair cannot."""
  return name.encode(errors='replace').decode() == name


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
