"""Fine-tuning: a run starts from another's weights, with its preprocessing.

The paper's CNN* are such runs: trained on all of ImageNet's Fall 2011 release,
then fine-tuned on ILSVRC-2012 (section 6.2).
"""

from typing import Any

import ml_collections
import numpy as np

from alexnet_jax import errors, trained
from alexnet_jax.data import preprocessing

Tree = Any


def first_preprocessing(
  config: ml_collections.ConfigDict, like: Tree, class_names: list[str]
) -> preprocessing.Preprocessing:
  """That of the run which `config.init_from` names.

  Args:
    config: of the new run.
    like: its parameters, arrays or shapes.
    class_names: of its data.

  Raises:
    UserError: where that run does not fit the config.
  """
  origin = trained.read(config.init_from, {})
  _choose_layers(config, like, origin, class_names)
  _check_inputs(config, origin.process)
  return origin.process


def first_params(
  config: ml_collections.ConfigDict, drawn: Tree, class_names: list[str]
) -> Tree:
  """A new run's canonical parameters.

  Args:
    config: of the new run.
    drawn: the parameters of the same tree that it would have started from.
    class_names: of its data.

  Returns:
    Those of the run that `config.init_from` names, but for the layers of
    `config.init_fresh` and, where the two runs' classes differ, the head.

  Raises:
    UserError: where that run does not fit the config.
  """
  origin = trained.read(config.init_from, {})
  taken = _choose_layers(config, drawn, origin, class_names)
  fresh = ', '.join(name for name in drawn if name not in taken)
  print(
    f'Starts from {origin.workdir}, step {origin.step:,}; drawn anew: '
    f'{fresh or "nothing"}.'
  )
  return drawn | {name: origin.params[name] for name in taken}


def _choose_layers(
  config: ml_collections.ConfigDict,
  like: Tree,
  origin: trained.Stored,
  class_names: list[str],
) -> list[str]:
  """Which layers to take from the other run."""
  fresh = [name for name in config.init_fresh.split(',') if name]
  if unknown := [name for name in fresh if name not in like]:
    raise errors.UserError(
      f'init_fresh names {unknown[0]!r}, which is no layer: choose from '
      f'{", ".join(like)}.'
    )
  if class_names != origin.class_names:
    fresh.append(config.model.layers[-1])
  taken = [name for name in like if name not in fresh]
  theirs = origin.params
  differences = [
    f'{name} is {_shape(theirs, name)}, not {_shape(like, name)}'
    for name in taken
    if _shape(theirs, name) != _shape(like, name)
  ]
  if differences:
    raise errors.UserError(
      f'init_from={config.init_from} has another network '
      f'({"; ".join(differences)}); give a run of this one, or name the layers '
      'to draw anew in init_fresh.'
    )
  return taken


def _shape(params: Tree, name: str) -> str:
  return str(list(params[name]['kernel'].shape)) if name in params else 'absent'


def _check_inputs(
  config: ml_collections.ConfigDict, process: preprocessing.Preprocessing
) -> None:
  """The new run's config must say what the other's preprocessing does."""
  actual = {
    'data.image_size': process.mean_image.shape[0],
    'data.crop_size': int(process.crop_size),
    'data.scale': process.scale.tolist(),
  }
  for name, value in actual.items():
    given = config.data[name.removeprefix('data.')]
    if np.asarray(given, np.float32).tolist() != value:
      raise errors.UserError(
        f'{name}={given} but init_from={config.init_from} was trained with '
        f'{value}; give --config.{name}={value}.'
      )
