"""Which places of which images excite a layer's channels most."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from alexnet_jax import parallel, trained
from alexnet_jax.analysis import features, ranking, receptive_field
from alexnet_jax.data import pipeline, records
from alexnet_jax.models import alexnet

_TAGS = ('record', 'row', 'column')
_SPLIT = 'train'


class Excited(NamedTuple):
  """The images that excite C channels most, k each, best first.

  Attributes:
    channels: [C], counted over all towers, one after the other.
    records: [C, k] of int32; -1 where the split is too small.
    values: [C, k] of float32, the layer's maps before their activation.
    places: [C, k, 2], (row, column) of the highest value in the map; (0, 0)
      for dense layers.
  """

  channels: np.ndarray
  records: np.ndarray
  values: np.ndarray
  places: np.ndarray


def num_channels(model: ml_collections.ConfigDict, layer: str) -> int:
  """Channels of all towers.

  Raises:
    UserError: where the network has no such layer.
  """
  features.check_layer(model, layer)
  row = alexnet.layer_table(model)[layer]
  if row.kind == 'head':
    return model.num_classes
  return model.towers * row.features


def find(
  run: trained.Trained,
  prepared: records.PreparedSet,
  layer: str,
  channels: np.ndarray,
  *,
  count: int = 9,
  batch_size: int = 128,
) -> Excited:
  """Streams training images by, at most one place of each for a channel.

  Ties go to the lower record, and in a map to the first place in row order.

  Raises:
    UserError: where there is no such layer, or batches do not divide among
      the devices.
  """
  plan = run.plan
  parallel.check_batch_size(plan, batch_size)
  step = plan.compile(
    functools.partial(_rank_batch, tuple(channels)),
    deterministic=False,
    donate=False,
  )
  best = ranking.start(plan, len(channels), count, _TAGS)
  stream = features.batches(
    run, prepared, layer, _SPLIT, batch_size, features.MAPS
  )
  total = -(-prepared.num_examples(_SPLIT) // batch_size)
  bar = tqdm.tqdm(stream, total=total, unit='batch', leave=False)
  found = ranking.fold(plan, step, best, bar)
  places = np.stack([found['row'], found['column']], axis=-1)
  channels = np.asarray(channels)
  return Excited(channels, found['record'], found['score'], places)


def _rank_batch(
  channels: tuple[int, ...],
  best: ranking.Ranking,
  maps: jax.Array,
  where: dict[str, jax.Array],
) -> ranking.Ranking:
  """The per-device program: maps [b, H, W, C], or [b, C] of dense layers."""
  if maps.ndim == 2:
    maps = maps[:, None, None, :]
  width = maps.shape[2]
  flat = maps[..., jnp.array(channels)].reshape(len(maps), -1, len(channels))
  place = flat.argmax(axis=1).T.astype(jnp.int32)  # [C, b]
  values = jnp.where(where['mask'] > 0, flat.max(axis=1).T, -jnp.inf)
  new = {
    'score': values,
    'record': jnp.broadcast_to(where['record'], values.shape),
    'row': place // width,
    'column': place % width,
  }
  return ranking.merge(best, new)


def crops(
  run: trained.Trained,
  prepared: records.PreparedSet,
  layer: str,
  found: Excited,
) -> list[list[np.ndarray]]:
  """What each place sees of its image: C lists of [h, w, 3] of uint8.

  Those at an image's border are smaller, see `receptive_field`.
  """
  model, size = run.config.model, run.config.data.crop_size
  margin = (prepared.image_size - size) // 2

  def cut(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    rows, columns = [
      slice(
        *(margin + np.array(receptive_field.interval(model, size, layer, p)))
      )
      for p in place.tolist()
    ]
    return image[rows, columns]

  def cut_all(numbers: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    known = numbers >= 0
    images = pipeline.read_images(prepared, _SPLIT, numbers[known])
    return [cut(*pair) for pair in zip(images, places[known], strict=True)]

  return [
    cut_all(*pair) for pair in zip(found.records, found.places, strict=True)
  ]
