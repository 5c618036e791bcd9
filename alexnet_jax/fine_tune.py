"""Fine-tuning: a run starts from another's weights, with its preprocessing.

The paper's CNN* are such runs: trained on all of ImageNet's Fall 2011 release,
then fine-tuned on ILSVRC-2012 (section 6.2).
"""

from typing import Any

import ml_collections
import numpy as np

from alexnet_jax import errors, hosts, trained
from alexnet_jax.data import preprocessing

Tree = Any


def read_origin(
  config: ml_collections.ConfigDict, like: Tree
) -> trained.Stored:
  """The run that `config.init_from` names; for the rest, see `check_head`.

  Args:
    config: of the new run.
    like: its parameters, arrays or shapes.

  Raises:
    UserError: where there is no such run, or it does not fit the config,
      whatever the new run's classes are.
  """
  origin = trained.read(config.init_from, {})
  fresh = _fresh_layers(config, like)
  head = config.model.layers[-1]  # which may be drawn anew
  taken = [name for name in like if name not in fresh | {head}]
  _check_shapes(config, taken, like, origin.params)
  _check_inputs(config, origin.process)
  return origin


def check_head(
  config: ml_collections.ConfigDict,
  like: Tree,
  origin: trained.Stored,
  class_names: list[str],
) -> None:
  """Raises UserError where a head that is taken over does not fit.

  Args:
    config: of the new run.
    like: its parameters, arrays or shapes.
    origin: of `read_origin`.
    class_names: of the new run's data.
  """
  head = config.model.layers[-1]
  if head not in _drawn_anew(config, like, origin, class_names):
    _check_shapes(config, [head], like, origin.params)


def _drawn_anew(
  config: ml_collections.ConfigDict,
  like: Tree,
  origin: trained.Stored,
  class_names: list[str],
) -> set[str]:
  """Layers of `config.init_fresh` and, where classes differ, the head."""
  fresh = _fresh_layers(config, like)
  return fresh | (
    {config.model.layers[-1]} if class_names != origin.class_names else set()
  )


def first_params(
  config: ml_collections.ConfigDict,
  drawn: Tree,
  origin: trained.Stored,
  class_names: list[str],
) -> Tree:
  """A new run's canonical parameters.

  Args:
    config: of the new run.
    drawn: the parameters of the same tree that it would have started from.
    origin: of `read_origin`.
    class_names: of the new run's data.

  Returns:
    Those of the origin, but for the layers of `config.init_fresh` and, where
    the two runs' classes differ, the head.
  """
  fresh = _drawn_anew(config, drawn, origin, class_names)
  taken = [name for name in drawn if name not in fresh]
  hosts.say(
    f'Starts from {origin.workdir}, step {origin.step:,}; drawn anew: '
    f'{", ".join(name for name in drawn if name in fresh) or "nothing"}.'
  )
  return drawn | {name: origin.params[name] for name in taken}


def check_preprocessing(
  config: ml_collections.ConfigDict,
  origin: trained.Stored,
  process: preprocessing.Preprocessing,
) -> None:
  """Raises UserError where a run that was begun had another origin."""
  if origin.process.digest() != process.digest():
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
  config: ml_collections.ConfigDict, names: list[str], ours: Tree, theirs: Tree
) -> None:
  differences = [
    f'{name} is {_shape(theirs, name)}, not {_shape(ours, name)}'
    for name in names
    if _shape(theirs, name) != _shape(ours, name)
  ]
  if differences:
    raise errors.UserError(
      f'init_from={config.init_from} has another network '
      f'({"; ".join(differences)}); give a run of this one, or name the layers '
      'to draw anew in init_fresh.'
    )


def _shape(params: Tree, name: str) -> str:
  return str(list(params[name]['kernel'].shape)) if name in params else 'absent'


def _check_inputs(
  config: ml_collections.ConfigDict, process: preprocessing.Preprocessing
) -> None:
  """The new run's config must say what the other's preprocessing does."""
  actual = {
    'image_size': process.mean_image.shape[0],
    'crop_size': int(process.crop_size),
    'scale': process.scale,
  }
  for name, value in actual.items():
    given = np.asarray(config.data[name], np.float32)
    if not np.array_equal(np.broadcast_to(given, 3), np.broadcast_to(value, 3)):
      raise errors.UserError(
        f'data.{name}={config.data[name]} but init_from={config.init_from} was '
        f'trained with {np.asarray(value).tolist()}; give --config='
        f'configs/fine_tune.py:{config.init_from}:DATA, which takes that over.'
      )
