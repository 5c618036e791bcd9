"""A run's checkpoint with all that it takes to apply its network."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from alexnet_jax import errors, models, parallel, paths, validate
from alexnet_jax.data import augment, ilsvrc, prepare, preprocessing, records
from alexnet_jax.data import images as image_files
from alexnet_jax.models import alexnet, layers
from alexnet_jax.run import Run, build_run
from alexnet_jax.train_step import abstract_train_state
from alexnet_jax.workdir import checkpoints, files

Tree = Any
# Function of images [N, S, S, 3] of uint8 that returns arrays [N, ...].
ImageFunction = Callable[[np.ndarray], Tree]
# A layer's output as the next layer reads it (after activation, norms, pools
# and dropout's factor), or its maps as computed, before these.
OUTPUT = 'output'
MAPS = 'maps'
_BATCH_SIZE = 64
# Options of JAX with whose other values no network can be applied. Programs set
# them; the Python API leaves them to its user.
_JAX_OPTIONS = {
  'jax_enable_x64': False,
  'jax_disable_jit': False,
  'jax_numpy_rank_promotion': 'allow',
}


@dataclasses.dataclass
class TrainedRun:
  """A network with its weights and its run's own preprocessing.

  Attributes:
    workdir: Absolute path of the run.
    config: Config of the run, with what evaluation has changed.
    preprocessing: Preprocessing that the network was trained with.
    variables: 'params' and 'batch_stats', canonical and as numpy arrays
      (`read`), or on the devices (`load`, `restore`).
    step: Step of the checkpoint.
    class_names: Names of the classes in the order of labels.
    digest: Digest of checkpoint and preprocessing, which tells networks apart.
  """

  workdir: pathlib.Path
  config: ml_collections.ConfigDict
  preprocessing: preprocessing.Preprocessing
  variables: dict[str, Tree]
  step: int
  class_names: list[str]
  digest: str
  _functions: dict[tuple[str | None, int], ImageFunction] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  @functools.cached_property
  def run(self) -> Run:
    """Programs that apply the network."""
    return build_run(self.config, self.preprocessing)

  @property
  def params(self) -> Tree:
    """Parameters of the network."""
    return self.variables['params']

  @property
  def plan(self) -> parallel.Plan:
    """Plan that spreads the work over devices."""
    return self.run.plan

  @property
  def readable_names(self) -> list[str]:
    """Names of the classes for a person, in the order of labels."""
    return ilsvrc.readable_names(self.class_names)

  def open_data(self) -> records.PreparedSet:
    """Opens the data that `config.data` names, with the run's labels.

    Classes are matched by name; the data may have fewer than the run.

    Raises:
      UserError: If they are missing or have classes that the run lacks, or
        another set than the run's was prepared from other files.
    """
    data = self.config.data
    prepared = prepare.open_or_prepare(data)
    if data.name != files.read_config(self.workdir).data.name:
      # First: another set's folders may have been mended since.
      prepare.check_origin(prepared, data.manual_dir)
    validate.check_channels(self.config, prepared)
    unknown = set(prepared.class_names) - set(self.class_names)
    if unknown:
      raise errors.UserError(
        f'{prepared.directory} has classes that {self.workdir} does not know '
        f'({errors.listed(unknown, 20)}): name them as in its class_names.txt, '
        'leave them out, or give data.name or data.dir of another set.'
      )
    return dataclasses.replace(prepared, known_classes=tuple(self.class_names))

  def predict(
    self, images: Iterable[image_files.Image], batch_size: int = _BATCH_SIZE
  ) -> np.ndarray:
    """Returns the probabilities of the classes, float32 [N, classes].

    They are averaged over `config.eval.views` patches of each image.

    Args:
      images: Paths of N files, or an array [N, H, W, 3] of uint8. They are
        scaled as `prepare` scales the images of a data set.
      batch_size: Largest number of images at a time.

    Raises:
      UserError: If an image cannot be read or has a wrong shape or type.
    """
    return np.exp(self._apply(None, images, batch_size))

  def features(
    self,
    images: Iterable[image_files.Image],
    layer: str,
    batch_size: int = _BATCH_SIZE,
  ) -> np.ndarray:
    """Returns a layer's output for the centre patches, float32 [N, ...].

    It is what the next layer reads: [N, H, W, C], or [N, D] of a dense layer.
    C and D count all towers, one after the other.

    Args:
      images: Images in one of the forms that `predict` takes.
      layer: Name of the layer, for example 'fc7'.
      batch_size: Largest number of images at a time.

    Raises:
      UserError: If the network has no such layer, or an image cannot be read
        or has a wrong shape or type.
    """
    self.check_layer(layer)
    return self._apply(layer, images, batch_size)

  def check_colors(self, images: np.ndarray) -> None:
    """Raises UserError if a network for grey images gets one in colour."""
    if self.config.data.channels == 1 and np.ptp(images, axis=-1).any():
      raise errors.UserError(
        f'{self.workdir} was trained on grey images (data.channels=1) and gets '
        'one in colour; give grey ones.'
      )

  def check_layer(self, layer: str) -> None:
    """Raises UserError if the network has no layer of this name."""
    if self.config.model.name == 'alexnet':
      alexnet.layer_row(self.config.model, layer)
      return
    names = traverse_util.flatten_dict(self.params, sep='/')
    if not any(name.startswith(f'{layer}/') for name in names):
      raise errors.UserError(
        f'layer={layer!r} does not exist in this network: choose from '
        f'{", ".join(self.params)}, or a part of one, as '
        f'{min(names).rpartition("/")[0]}.'
      )

  def _apply(
    self,
    layer: str | None,
    images: Iterable[image_files.Image],
    batch_size: int,
  ) -> np.ndarray:
    """Applies the network up to a layer, or up to its log probabilities."""
    shards = self.plan.num_data_shards
    # The last batch is padded anyway, so that any size will do.
    batch_size = -(-batch_size // shards) * shards
    batches = image_files.scale_all(
      images, self.config.data.image_size, batch_size
    )
    first = next(batches)
    size = min(_round_up(len(first), shards), batch_size)
    function = self._function(layer, size)
    return np.concatenate([function(first), *map(function, batches)])

  def _function(self, layer: str | None, batch_size: int) -> ImageFunction:
    key = layer, batch_size
    if key not in self._functions:
      self._functions[key] = (
        create_extractor(self, layer, batch_size)
        if layer
        else create_predictor(self, batch_size)
      )
    return self._functions[key]


def load(name: str, overrides: dict[str, object]) -> TrainedRun:
  """Restores a run by name and puts its parameters on the devices.

  Args:
    name: WORKDIR; WORKDIR@STEP or WORKDIR@best for a checkpoint that is not the
      newest; or pretrained:NAME for a network that ships with the package.
    overrides: Fields of its config, see `files.evaluation_config`.

  Raises:
    UserError: If there is no such run, or checkpoint, preprocessing and devices
      do not fit its config.
  """
  return _put(read(name, overrides))


def restore(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> TrainedRun:
  """Restores a checkpoint and puts its parameters on the devices.

  Args:
    config: Config of the run, see `files.evaluation_config`; `eval.step` says
      which checkpoint.
    workdir: Absolute path of the run.

  Raises:
    UserError: If checkpoint, preprocessing and devices do not fit the config.
  """
  return _put(_read(config, workdir))


def split_name(name: str) -> tuple[str, int | None]:
  """Splits 'WORKDIR@STEP' into its parts; without '@STEP', the step is None.

  WORKDIR@best has the step `checkpoints.BEST`. A directory of that whole name
  is itself, whatever follows its @.

  Raises:
    UserError: If what follows the @ is no step of training.
  """
  directory, at, step = name.rpartition('@')
  if not at or '/' in step or paths.local('workdir', name).is_dir():
    return name, None
  if step == 'best':
    return directory, checkpoints.BEST
  if not re.fullmatch('0*[1-9][0-9]*', step):
    raise errors.UserError(
      f'workdir={name}: {step!r} is no step; give WORKDIR, WORKDIR@STEP '
      'or WORKDIR@best.'
    )
  return directory, int(step)


def read(name: str, overrides: dict[str, object]) -> TrainedRun:
  """Reads a run by name; its parameters are canonical, as numpy arrays.

  Args:
    name: WORKDIR; WORKDIR@STEP or WORKDIR@best for a checkpoint that is not the
      newest; or pretrained:NAME for a network that ships with the package.
    overrides: Fields of its config, see `files.evaluation_config`.

  Raises:
    UserError: If there is no such run, or checkpoint and preprocessing do not
      fit its config.
  """
  directory, step = split_name(name)
  workdir = paths.of_run('workdir', directory)
  if step is not None:
    overrides = overrides | {'eval.step': step}
  return _read(files.evaluation_config(workdir, overrides), workdir)


def _read(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> TrainedRun:
  _check_jax_options()
  validate.check_config(config)
  inputs = preprocessing.load(workdir / 'preprocessing.npz')
  expected = abstract_train_state(config).variables
  step, variables, extra = _restore(workdir, config.eval.step, expected)
  inputs.check_digest(extra['preprocessing'])
  # `extra` holds a digest of every leaf and of the preprocessing.
  text = json.dumps(extra, sort_keys=True)
  return TrainedRun(
    workdir=workdir,
    config=config,
    preprocessing=inputs,
    variables=variables,
    step=step,
    class_names=(workdir / 'class_names.txt').read_text().splitlines(),
    digest=hashlib.sha256(text.encode()).hexdigest(),
  )


def _check_jax_options() -> None:
  for name, value in _JAX_OPTIONS.items():
    if (given := getattr(jax.config, name)) != value:
      raise errors.UserError(
        f'jax.config.{name}={given!r} does not fit a run: call '
        f'jax.config.update({name!r}, {value!r}) before it is loaded.'
      )


def _restore(
  workdir: pathlib.Path, step: int, like: Tree
) -> tuple[int, Tree, dict]:
  """Restores parameters and running moments, maybe while the run trains.

  The newest or the best checkpoint may be removed before it is read. There is
  a newer one then, and the choice is made again.
  """
  newest = files.newest_step(workdir)
  # A run that has checkpoints may have an export of this name beside them.
  if newest is None and (workdir / checkpoints.WEIGHTS).exists():
    return checkpoints.read_weights(workdir, step, like)
  while True:
    newest = files.newest_step(workdir)
    try:
      with checkpoints.Checkpointer(workdir) as checkpointer:
        return checkpointer.restore(step, like)
    except errors.UserError:
      if step > 0 or files.newest_step(workdir) == newest:
        raise


def _put(network: TrainedRun) -> TrainedRun:
  network.variables = network.run.put_variables(network.variables)
  return network


def create_extractor(
  network: TrainedRun,
  layer: str,
  batch_size: int,
  part: str = OUTPUT,
  reduce: Callable[[jax.Array], Tree] = lambda features: features,
) -> ImageFunction:
  """Compiles the network up to a layer, for centre patches.

  Args:
    network: Network with its parameters on the devices.
    layer: Name of the layer, or its path, as 'stage3/block2'.
    batch_size: Images at a time.
    part: OUTPUT or MAPS, which differ in AlexNet only.
    reduce: Function that the devices apply to features [N, H, W, C], or [N, D]
      of dense layers; it returns a tree of arrays [N, ...].

  Returns:
    Function of images [N, S, S, 3] of uint8 that returns what `reduce` does, as
    numpy arrays. C and D count all towers, one after the other.

  Raises:
    UserError: If the network has no such layer, or a batch cannot be divided
      among the devices.
  """
  parallel.check_batch_size(network.plan, batch_size)
  network.check_layer(layer)
  # Each device has the whole head, and its own towers of other layers.
  is_whole = layer == models.head_name(network.config.model)
  model, crop_size = network.run.model, network.config.data.crop_size

  def program(variables: Tree, images: jax.Array) -> Tree:
    """Runs on each device; XLA drops the layers above."""
    (patch,) = augment.views(images, crop_size, 1)
    _, kept = model.apply(
      variables,
      network.preprocessing(patch),
      capture_intermediates=lambda module, _: '/'.join(module.path) == layer,
      mutable=['intermediates'],
    )
    kept = traverse_util.flatten_dict(kept['intermediates'], sep='/')
    # Only AlexNet keeps an output after the operations of a layer.
    maps = kept[f'{layer}/__call__']
    (made,) = maps if part == MAPS else kept.get(f'{layer}_output', maps)
    parts = jax.tree.leaves(made)
    made = parts[0] if is_whole else model.towers.gather(parts)
    return reduce(layers.at_least_float32(made))

  compiled = network.plan.compile(
    program, deterministic=network.config.deterministic, donate=False
  )
  return _in_batches(network, compiled, batch_size)


def create_predictor(network: TrainedRun, batch_size: int) -> ImageFunction:
  """Returns a function of whole images: their log probabilities.

  Args:
    network: Network with its parameters on the devices; `eval.views` of its
      config are averaged.
    batch_size: Images at a time, a multiple of the plan's data shards.

  Returns:
    Function of any N images [N, S, S, 3] of uint8 that returns natural
    logarithms of probabilities [N, classes].
  """
  return _in_batches(network, network.run.predict, batch_size)


def _in_batches(
  network: TrainedRun, compiled: Callable[[Tree, Tree], Tree], batch_size: int
) -> ImageFunction:
  """Turns a program of (variables, images) into a function of any N images."""

  def apply_batch(images: np.ndarray) -> Tree:
    padding = ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0))
    on_devices = network.plan.put_batch(np.pad(images, padding))
    made = network.plan.get_batch(compiled(network.variables, on_devices))
    return jax.tree.map(lambda x: x[: len(images)], made)

  def apply(images: np.ndarray) -> Tree:
    network.check_colors(images)
    # Without images, a batch of nothing but padding gives the shapes.
    starts = range(0, max(len(images), 1), batch_size)
    parts = [apply_batch(images[i : i + batch_size]) for i in starts]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)

  return apply


def _round_up(count: int, num_shards: int) -> int:
  """Returns a batch size for `count` images: a power of four in each shard.

  Compiling a program takes longer than running it on padding, so that there
  should be few sizes.
  """
  size = num_shards
  while size < count:
    size *= 4
  return size
