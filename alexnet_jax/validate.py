"""Refuses a config that cannot work, before anything is written."""

import ml_collections

from alexnet_jax import errors
from alexnet_jax.models import alexnet

_CHOICES = {
  'model.activation': tuple(alexnet.ACTIVATIONS),
  'model.init': ('normal', 'he'),
  'model.dtype': ('float32', 'bfloat16'),
  'data.color_noise': ('none', 'paper', 'source'),
  'eval.views': (1, 10),
  'eval.split': ('train', 'validation'),
  'schedule.name': ('epochs', 'four_step', 'plateau'),
}
_POSITIVE = (
  'batch_size',
  'num_epochs',
  'keep_checkpoints',
  'data.image_size',
  'data.crop_size',
  'data.scale',
  'model.towers',
  'model.num_classes',
)


_NOT_NEGATIVE = (
  'train_steps',
  *(
    f'{what}_every_{unit}'
    for what in ('log', 'eval', 'checkpoint')
    for unit in ('steps', 'epochs')
  ),
)


def _get(config: ml_collections.ConfigDict, name: str):
  for part in name.split('.'):
    config = config[part]
  return config


def check_config(config: ml_collections.ConfigDict) -> None:
  """Checks what needs no data and no device.

  Raises:
    UserError: naming the field, its value and what would do.
  """
  for name, choices in _CHOICES.items():
    value = _get(config, name)
    if value not in choices:
      raise errors.UserError(
        f'{name}={value!r} does not exist: choose from '
        f'{", ".join(map(str, choices))}.'
      )
  for name in _POSITIVE:
    value = _get(config, name)
    if value <= 0:
      raise errors.UserError(f'{name}={value} must be greater than 0.')
  for name in _NOT_NEGATIVE:
    if config[name] < 0:
      raise errors.UserError(f'{name}={config[name]} must not be negative.')
  if config.data.crop_size > config.data.image_size:
    raise errors.UserError(
      f'data.crop_size={config.data.crop_size} is larger than '
      f'data.image_size={config.data.image_size}: give a smaller crop.'
    )
  if not 0 <= config.seed < 2**31:
    raise errors.UserError(f'seed={config.seed} must be in 0..2^31 - 1.')
  alexnet.layer_table(config.model)
