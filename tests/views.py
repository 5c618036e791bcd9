"""Predictions of a network on the tiny set, written down in numpy."""

import pathlib

import numpy as np

from alexnet_jax import train_step
from tests import tiny

_CROP, _MARGIN = 28, tiny.SIZE - 28
_CENTRE = [(_MARGIN // 2, _MARGIN // 2)]
_CORNERS = [(y, x) for y in (0, _MARGIN) for x in (0, _MARGIN)]


def probabilities(config, params, workdir, count):
  """Labels [N], and mean probabilities of 1 or 10 views [N, classes]."""
  directory = pathlib.Path(config.data.dir) / 'tiny'
  images = np.fromfile(directory / 'validation-00000-of-00001.raw', np.uint8)
  images = images.reshape(-1, tiny.SIZE, tiny.SIZE, 3)
  labels = np.load(directory / 'validation_labels.npy')
  return labels, mean_probabilities(config, params, workdir, images, count)


def mean_probabilities(config, params, workdir, images, count):
  """Mean probabilities of 1 or 10 views of images [N, S, S, 3]."""
  with np.load(workdir / 'preprocessing.npz') as arrays:
    mean = arrays['mean_image'][2:30, 2:30]
  model = train_step.create_model(config)
  total = 0.0
  for view in _views(images.astype(np.float32), count):
    logits = model.apply({'params': params}, (view - mean) / 64)
    odds = np.exp(np.asarray(logits, np.float64))
    total = total + odds / odds.sum(axis=1, keepdims=True)
  return total / count


def _views(images, count):
  for y, x in _CENTRE if count == 1 else _CENTRE + _CORNERS:
    patch = images[:, y : y + _CROP, x : x + _CROP]
    yield patch
    if count > 1:
      yield patch[:, :, ::-1]
