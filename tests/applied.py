"""A run on the tiny set, and its network applied to all images at once."""

import numpy as np

from alexnet_jax import train, train_state
from tests import tiny

CROP, MARGIN = 28, 2
# Training images that are one and the same.
TWINS = [5, 37, 59]


def train_tiny(directory):
  """Trains; returns the config and the canonical parameters."""
  tiny.prepare_tiny(directory)
  path = directory / 'tiny' / 'train-00000-of-00001.raw'
  pixels = np.memmap(path, np.uint8, 'r+').reshape(-1, tiny.SIZE**2 * 3)
  pixels[TWINS] = pixels[TWINS[0]]
  pixels.flush()
  tiny.renew_digest(directory / 'tiny', path)
  config = tiny.get_config(str(directory))
  state = train.train_and_evaluate(config, directory / 'run')
  return config, state.params


def images(directory, split):
  """[N, S, S, 3] of uint8."""
  path = directory / 'tiny' / f'{split}-00000-of-00001.raw'
  pixels = np.fromfile(path, np.uint8)
  return pixels.reshape(-1, tiny.SIZE, tiny.SIZE, 3)


def apply(directory, config, params, split):
  """Logits [N, classes] and everything that layers make of the patches."""
  end = MARGIN + CROP
  with np.load(directory / 'run' / 'preprocessing.npz') as arrays:
    mean = arrays['mean_image'][MARGIN:end, MARGIN:end]
  patches = images(directory, split)[:, MARGIN:end, MARGIN:end]
  model = train_state.create_model(config)
  logits, kept = model.apply(
    {'params': params},
    (patches.astype(np.float32) - mean) / 64,
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  return np.asarray(logits), kept['intermediates']
