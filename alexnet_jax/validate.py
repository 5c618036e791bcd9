"""Checks of a config that need no data and no device."""

from collections.abc import Sequence

import ml_collections
from absl import logging

from alexnet_jax import config as config_lib
from alexnet_jax import errors, models
from alexnet_jax.data import images, records
from alexnet_jax.models import alexnet, layers

_CHOICES = {
  'model.activation': tuple(layers.ACTIVATIONS),
  'model.init': ('normal', 'he'),
  'model.dtype': ('float32', 'bfloat16'),
  'model.name': tuple(models.MODELS),
  'model.lenet.pool': ('avg', 'max'),
  'model.resnet.shortcut': ('A', 'B'),
  'model.resnet.stem': ('imagenet', 'cifar'),
  'data.channels': (1, 3),
  'data.color_noise': ('none', 'paper', 'source'),
  'eval.views': (1, 10),
  'eval.split': ('train', 'validation'),
  'schedule.name': ('plateau', 'epochs', *config_lib.FORMS),
  'schedule.biases.name': ('', 'epochs', *config_lib.FORMS),
}
# Lowest and highest value of a field.
_RANGES = {
  'seed': (0, 2**31 - 1),
  'batch_size': (1, 2**20),
  'accumulate_steps': (1, 2**12),
  'num_epochs': (1e-6, 1e6),
  'min_epoch_steps': (0, 10**6),
  'train_steps': (0, 2**31 - 1),
  'stop_at_train_error': (0, 1),
  'checkpoint_every_minutes': (0, 1e6),
  'keep_checkpoints': (1, 10**6),
  'num_devices': (0, 10**6),
  'profile_steps': (0, 10**6),
  'data.image_size': images.SIZES,
  'data.crop_size': (1, 4096),
  'data.pad': (0, 4096),
  'data.train_examples': (0, 10**9),
  'data.color_noise_epochs': (0, 1e6),
  'data.workers': (0, 1024),
  'model.towers': (1, 64),
  'model.num_classes': (1, 10**6),
  'model.keep': (1e-6, 1),
  'model.pool.size': (1, 4096),
  'model.pool.stride': (1, 4096),
  'model.lrn.n': (1, 4096),
  'model.lrn.k': (1e-6, 1e6),
  'model.lrn.alpha': (0, 1e6),
  'model.lrn.beta': (0, 100),
  'model.spatial_norm.size': (1, 4096),
  'model.spatial_norm.k': (1e-6, 1e6),
  'model.spatial_norm.scale': (0, 1e6),
  'model.spatial_norm.beta': (0, 100),
  'model.batch_norm.momentum': (0, 1),
  'model.batch_norm.epsilon': (1e-12, 1),
  'model.batch_norm.group': (0, 2**20),
  'optimizer.learning_rate': (0, 1e6),
  'optimizer.bias_rate_multiplier': (0, 1e6),
  'optimizer.momentum': (0, 1),
  'optimizer.label_smoothing': (0, 1),
  'optimizer.lars_eta': (0, 1e6),
  'optimizer.weight_decay': (0, 1e6),
  'schedule.total_factor': (1, 1e6),
  'schedule.levels': (2, 100),
  'schedule.power': (1e-6, 100),
  'schedule.warmup_epochs': (0, 1e6),
  'schedule.warmup_start': (0, 1),
  'schedule.biases.total_factor': (1, 1e6),
  'schedule.biases.levels': (2, 100),
  'schedule.patience': (1, 10**6),
  'schedule.min_delta': (0, 1),
  'eval.step': (-1, 2**31 - 1),
} | {
  f'{what}_every_{unit}': (0, 1e9)
  for what in ('log', 'eval', 'checkpoint')
  for unit in ('steps', 'epochs')
}
_SCALES = (1e-6, 1e6)
_FACTORS = (0, 1e6)
_MOST_PADDING = 4096
_KINDS = ('kernel', 'bias')
_ROW_RANGES = {
  'init_std': (0, 1e6),
  'init_bias': (-1e6, 1e6),
  'keep': (1e-6, 1),
  'features': (1, 10**6),
  'kernel': (1, 4096),
  'stride': (1, 4096),
}


def check_config(config: ml_collections.ConfigDict) -> None:
  """Refuses a config that cannot work.

  Raises:
    UserError: A sentence with the field, its value and the remedy.
  """
  for name, choices in _CHOICES.items():
    if (value := _get(config, name)) is not None:
      _check_choice(name, value, choices)
  for name, limits in _RANGES.items():
    if (value := _get(config, name)) is not None:
      _check_range(name, value, limits)
  _check_scale(config.data.scale)
  if config.init_fresh and not config.init_from:
    raise errors.UserError(
      f'init_fresh={config.init_fresh} but init_from is empty, so that every '
      'layer is drawn anyway; give init_from, or leave out init_fresh.'
    )
  if config.data.crop_size > config.data.image_size:
    raise errors.UserError(
      f'data.crop_size={config.data.crop_size} is larger than '
      f'data.image_size={config.data.image_size}: give a smaller crop.'
    )
  if config.model.name == 'alexnet':
    _check_layers(config)
  elif config.model.towers != 1:
    raise errors.UserError(
      f'model.towers={config.model.towers} but {config.model.name} has one '
      'column of layers; give model.towers=1.'
    )
  _check_color(config.data)
  _check_schedule(config.schedule)
  _check_drops('schedule.drops', config.schedule.drops)
  _check_drops('schedule.biases.drops', config.schedule.biases.drops)
  for name, pairs in config.schedule.layer_drops.items():
    _check_drops(f'schedule.layer_drops.{name}', pairs)


def _get(config: ml_collections.ConfigDict, name: str) -> object:
  """Returns a field, None if networks other than AlexNet do not have it."""
  for part in name.split('.'):
    if part not in config:
      return None
    config = config[part]
  return config


def _check_choice(name: str, value: object, choices: tuple) -> None:
  if value not in choices:
    raise errors.UserError(
      f'{name}={value!r} does not exist: choose from '
      f'{", ".join(map(str, choices))}.'
    )


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
  low, high = limits
  if not low <= value <= high:
    raise errors.UserError(
      f'{name}={value} is out of range: give a number from {low} to {high}.'
    )


def _check_scale(scale: object) -> None:
  """Refuses what is neither a number nor three; the field takes any type."""
  is_single = not isinstance(scale, (tuple, list))
  scales = (scale,) if is_single else scale
  if not (is_single or len(scales) == 3) or any(
    type(x) not in (int, float) for x in scales
  ):
    raise errors.UserError(
      f'data.scale={scale!r} is neither a number nor three: give one, or one '
      'for each of red, green and blue, as 58,57,57.'
    )
  for value in scales:
    _check_range('data.scale', value, _SCALES)


def _check_color(data: ml_collections.ConfigDict) -> None:
  if data.channels == 1 and data.color_noise != 'none':
    raise errors.UserError(
      f'data.color_noise={data.color_noise!r} but grey images have no colours; '
      'give data.color_noise=none.'
    )


def _check_layers(config: ml_collections.ConfigDict) -> None:
  for name, row in alexnet.layer_table(config.model).items():
    for field, limits in _ROW_RANGES.items():
      if field in row:
        _check_range(f'model.{name}.{field}', row[field], limits)
    if 'padding' in row:
      _check_padding(f'model.{name}.padding', row.padding)
  for group in (
    'optimizer.rate_multipliers',
    'optimizer.decay_multipliers',
    'schedule.layer_drops',
  ):
    for name in _get(config, group):
      layer, _, kind = name.partition('/')
      if layer not in config.model.layers or kind not in ('', *_KINDS):
        raise errors.UserError(
          f'{group} names {name!r}, which is no layer, nor its weights '
          f'(LAYER/kernel) or biases (LAYER/bias): choose from '
          f'{", ".join(config.model.layers)}.'
        )
  for group in ('optimizer.rate_multipliers', 'optimizer.decay_multipliers'):
    for name, factor in _get(config, group).items():
      _check_range(f'{group}.{name}', factor, _FACTORS)


def _check_padding(name: str, padding: Sequence[int]) -> None:
  if len(padding) != 2 or any(
    type(n) is not int or not 0 <= n <= _MOST_PADDING for n in padding
  ):
    raise errors.UserError(
      f'{name}={padding!r} is no pair of whole numbers from 0 to '
      f'{_MOST_PADDING}: write it as (2, 2).'
    )


def _check_schedule(schedule: ml_collections.ConfigDict) -> None:
  """Refuses drops and a warm-up that the schedule does not read."""
  if schedule.warmup_epochs and schedule.name == 'plateau':
    raise errors.UserError(
      f'schedule.warmup_epochs={schedule.warmup_epochs} but '
      'schedule.name=plateau, which has no warm-up; give another schedule, or '
      'schedule.warmup_epochs=0.'
    )
  if schedule.drops and schedule.name == 'plateau':
    raise errors.UserError(
      f'schedule.drops={schedule.drops} but schedule.name=plateau, which makes '
      'its own; give schedule.name=epochs, or schedule.drops=().'
    )
  if schedule.biases.drops and not schedule.biases.name:
    raise errors.UserError(
      f'schedule.biases.drops={schedule.biases.drops} but biases follow the '
      "weights' schedule; give schedule.biases.name=epochs, or "
      'schedule.biases.drops=().'
    )


def _check_drops(name: str, pairs: object) -> None:
  try:
    fine = all(
      0 <= epoch < 1e6 and 0 <= factor < 1e6 for epoch, factor in pairs
    )
  except (TypeError, ValueError):
    fine = False
  if not fine:
    raise errors.UserError(
      f'{name}={pairs!r} is no list of pairs (epoch, factor), each from 0 to '
      '1e6: write it as ((25, 0.1), (51, 0.1)).'
    )


def check_channels(
  config: ml_collections.ConfigDict, prepared: records.PreparedSet
) -> None:
  """Warns of grey images in a network for colours, refuses the reverse.

  Raises:
    UserError: If a network for grey images is given colours.
  """
  if config.data.channels == 1 and not prepared.is_grey:
    raise errors.UserError(
      f'data.channels=1 but the images of {prepared.directory} have colours; '
      'give data.channels=3, or grey images.'
    )
  if config.data.channels == 3 and prepared.is_grey:
    logging.warning(
      'The images of %s are grey, and data.channels=3 reads them as three '
      'equal colours; data.channels=1 takes them as they are.',
      prepared.directory,
    )


def check_num_classes(
  config: ml_collections.ConfigDict, prepared: records.PreparedSet
) -> None:
  """Raises UserError if the network's outputs are not the data's classes."""
  given, actual = config.model.num_classes, len(prepared.class_names)
  if given != actual:
    raise errors.UserError(
      f'model.num_classes={given} but {prepared.directory} has {actual} '
      'classes: name the data after the colon of --config, as in '
      '--config=configs/alexnet.py:cifar10, and all that follows is set.'
    )
