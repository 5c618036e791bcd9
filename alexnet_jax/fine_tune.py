"""Fine-tuning: a run starts from the weights and preprocessing of another.

The paper's CNN* is such a run: trained on all of ImageNet's Fall 2011 release,
then fine-tuned on ILSVRC-2012 (section 6.2).
"""

from collections.abc import Collection
from typing import Any

import ml_collections
import numpy as np

from alexnet_jax import errors, models, multihost, trained
from alexnet_jax.data import preprocessing

Tree = Any


def read_origin(
  config: ml_collections.ConfigDict, like: Tree
) -> trained.TrainedRun:
  """Reads the run that `config.init_from` names and checks all but its head.

  Args:
    config: Config of the new run.
    like: Parameters of the new run, arrays or shapes.

  Raises:
    UserError: If there is no such run, or it does not fit the config.
  """
  origin = trained.read(config.init_from, {})
  fresh = _fresh_layers(config, like)
  heads = _heads(config, like)  # checked once the classes are known
  taken = [name for name in like if name not in fresh | heads]
  _check_shapes(config, taken, like, origin.params)
  _check_inputs(config, origin.preprocessing)
  return origin


def check_head(
  config: ml_collections.ConfigDict,
  like: Tree,
  origin: trained.TrainedRun,
  class_names: list[str],
) -> None:
  """Raises UserError if heads that are taken over do not fit.

  Args:
    config: Config of the new run.
    like: Parameters of the new run, arrays or shapes.
    origin: Run that the new one starts from.
    class_names: Names of the classes in the new run's data.
  """
  fresh = _drawn_anew(config, like, origin, class_names)
  taken = _heads(config, like) - fresh
  _check_shapes(config, taken, like, origin.params)


def _heads(config: ml_collections.ConfigDict, like: Tree) -> set[str]:
  """Returns the layers whose size follows from the number of classes.

  GoogLeNet has heads within 'aux1' and 'aux2' as well.
  """
  head = models.head_name(config.model)
  return {name for name in like if name == head or head in like[name]}


def _drawn_anew(
  config: ml_collections.ConfigDict,
  like: Tree,
  origin: trained.TrainedRun,
  class_names: list[str],
) -> set[str]:
  """Returns the layers of `init_fresh`, and heads if the classes differ."""
  fresh = _fresh_layers(config, like)
  is_same = class_names == origin.class_names
  return fresh if is_same else fresh | _heads(config, like)


def first_variables(
  config: ml_collections.ConfigDict,
  drawn: Tree,
  origin: trained.TrainedRun,
  class_names: list[str],
) -> Tree:
  """Returns canonical 'params' and 'batch_stats' that a new run starts from.

  Args:
    config: Config of the new run.
    drawn: The same as they are drawn for the new run.
    origin: Run that the new one starts from.
    class_names: Names of the classes in the new run's data.

  Returns:
    Those of the origin, except for the layers of `config.init_fresh`, the heads
    if the classes of the two runs differ, and moments that the origin lacks.
  """
  layers = drawn['params']
  fresh = _drawn_anew(config, layers, origin, class_names)
  multihost.log(
    f'Starts from {origin.workdir}, step {origin.step:,}; drawn anew: '
    f'{", ".join(name for name in layers if name in fresh) or "nothing"}.'
  )

  def first(kind: str, name: str) -> Tree:
    old, layer = origin.variables[kind], name.removesuffix('_batch_norm')
    return (drawn[kind] if layer in fresh or name not in old else old)[name]

  return {
    kind: {name: first(kind, name) for name in own}
    for kind, own in drawn.items()
  }


def check_preprocessing(
  config: ml_collections.ConfigDict,
  origin: trained.TrainedRun,
  inputs: preprocessing.Preprocessing,
) -> None:
  """Raises UserError if a run that has begun had another origin."""
  if origin.preprocessing.digest() != inputs.digest():
    raise errors.UserError(
      f'init_from={config.init_from} is not the run any more that this one was '
      'begun with; give a new workdir.'
    )


def _fresh_layers(config: ml_collections.ConfigDict, like: Tree) -> set[str]:
  fresh = [name for name in config.init_fresh.split(',') if name]
  if unknown := [name for name in fresh if name not in like]:
    raise errors.UserError(
      f'init_fresh names {unknown[0]!r}, which is no layer: choose from '
      f'{", ".join(like)}.'
    )
  return set(fresh)


def _check_shapes(
  config: ml_collections.ConfigDict,
  names: Collection[str],
  ours: Tree,
  theirs: Tree,
) -> None:
  differences = models.shape_differences(
    *({k: v for k, v in tree.items() if k in names} for tree in (ours, theirs))
  )
  if differences:
    raise errors.UserError(
      f'init_from={config.init_from} has another network '
      f'({"; ".join(differences[:5])}); give a run of this one, or name the '
      'layers to draw anew in init_fresh.'
    )


def _check_inputs(
  config: ml_collections.ConfigDict, inputs: preprocessing.Preprocessing
) -> None:
  """Checks that the new config agrees with the origin's preprocessing."""
  actual = {
    'image_size': inputs.mean_image.shape[0],
    'crop_size': int(inputs.crop_size),
    'scale': inputs.scale,
  }
  for name, value in actual.items():
    given = np.asarray(config.data[name], np.float32)
    if not np.array_equal(np.broadcast_to(given, 3), np.broadcast_to(value, 3)):
      raise errors.UserError(
        f'data.{name}={config.data[name]} but init_from={config.init_from} was '
        f'trained with {np.asarray(value).tolist()}; give --config='
        f'configs/fine_tune.py:{config.init_from}:DATA, which takes that over.'
      )
