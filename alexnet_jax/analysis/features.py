"""What any layer of a trained network makes of images.

Always of the centre patch, and of all towers together.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from alexnet_jax import errors, trained
from alexnet_jax.data import augment, pipeline, preprocessing, records
from alexnet_jax.models import AlexNet, alexnet, layers
from alexnet_jax.train_state import create_model

# What of a layer: its output as the next layer reads it (after activation,
# norms, pools, and dropout's factor), or its maps as computed, before these.
OUTPUT = 'output'
MAPS = 'maps'
_BATCH_SIZE = 64


def last_hidden(model: ml_collections.ConfigDict) -> str:
  """The layer before the head: for the paper's net, of 4096 units.

  Raises:
    UserError: where there is none.
  """
  *hidden, _ = alexnet.layer_table(model)
  if not hidden:
    raise errors.UserError(
      'this network is a head alone and has no hidden layer; give another run.'
    )
  return hidden[-1]


def check_layer(model: ml_collections.ConfigDict, layer: str) -> None:
  """Raises UserError where the network has no such layer."""
  names = tuple(alexnet.layer_table(model))
  if layer not in names:
    raise errors.UserError(
      f'layer={layer!r} does not exist in this network: choose from '
      f'{", ".join(names)}.'
    )


def create_extractor(
  run: trained.Trained, layer: str, part: str = OUTPUT
) -> Callable[[Any], Any]:
  """Compiles what a layer makes of images.

  Args:
    run: the network.
    layer: its name in the table of layers.
    part: OUTPUT or MAPS.

  Returns:
    A function of whole images as `run.plan.put_batch` puts them, uint8
    [N, S, S, 3] and always as many, to float32 features on the devices:
    [N, H, W, C], or [N, D] of dense layers. C and D count all towers, one
    after the other.

  Raises:
    UserError: where the network has no such layer.
  """
  check_layer(run.config.model, layer)
  model = create_model(run.config, run.plan.towers)
  program = functools.partial(_extract, model, run.process, layer, part)
  compiled = run.plan.compile(
    program, deterministic=run.config.deterministic, donate=False
  )
  return functools.partial(compiled, run.params)


def extract(
  run: trained.Trained,
  images: np.ndarray,
  layer: str,
  part: str = OUTPUT,
) -> np.ndarray:
  """The same of any number of images: numpy in, numpy out."""
  extractor, slices = create_extractor(run, layer, part), run.plan.num_slices
  size = min(len(images), _BATCH_SIZE)
  size = -(-size // slices) * slices
  made = []
  for start in range(0, len(images), size):
    batch = images[start : start + size]
    padding = [(0, size - len(batch)), *[(0, 0)] * (images.ndim - 1)]
    features = extractor(run.plan.put_batch(np.pad(batch, padding)))
    made.append(run.plan.get_batch(features)[: len(batch)])
  return np.concatenate(made)


def batches(
  run: trained.Trained,
  prepared: records.PreparedSet,
  layer: str,
  split: str,
  batch_size: int,
  part: str = OUTPUT,
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
  """A layer's features of a whole split, in order.

  Yields:
    Features on the devices, see `create_extractor`; and which images they are
    of, {'record': [b] of int32, 'mask': [b] of float32, 0 for padding}.

  Raises:
    UserError: where layer or split do not exist, or an image cannot be read.
  """
  extractor = create_extractor(run, layer, part)
  share = run.plan.share(batch_size)
  stream = pipeline.eval_batches(
    prepared,
    split,
    batch_size,
    share=share,
    workers=run.config.data.workers,
  )
  for number, batch in enumerate(stream):
    places = np.arange(batch_size, dtype=np.int32)[share] + number * batch_size
    images = run.plan.put_batch(batch['image'])
    yield extractor(images), {'record': places, 'mask': batch['mask']}


def _extract(
  model: AlexNet,
  process: preprocessing.Preprocessing,
  layer: str,
  part: str,
  params: Any,
  images: jax.Array,
) -> jax.Array:
  """The per-device program; XLA drops the layers above."""
  (patch,) = augment.views(images, int(process.crop_size), 1)
  _, kept = model.apply(
    {'params': params},
    process(patch),
    capture_intermediates=lambda module, _: module.name == layer,
    mutable=['intermediates'],
  )
  kept = kept['intermediates']
  (made,) = kept[layer]['__call__'] if part == MAPS else kept[f'{layer}_output']
  return layers.at_least_float32(_gather(model, layer, made))


def _gather(model: AlexNet, layer: str, made: Any) -> jax.Array:
  if alexnet.layer_table(model.config)[layer].kind == 'head':
    return jax.tree.leaves(made)[0]  # every device has all of it
  return model.towers.gather(made)
