"""The nearest images of a data set, by what a layer makes of them.

Figure 4 of the paper: Euclidean distances of the last hidden layer's 4096
features. The set streams by, so memory does not grow with it.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax import lax

from alexnet_jax import parallel, trained
from alexnet_jax.analysis import feature_file, features, ranking
from alexnet_jax.data import records

# Features [b, ...] on the devices, and numpy {'record': [b], 'mask': [b]}.
_Batch = tuple[jax.Array, dict[str, np.ndarray]]


class Neighbours(NamedTuple):
  """Nearest first; a record -1 at infinity where the set is too small.

  Attributes:
    records: [Q, k] of int32, numbers of the split's images.
    distances: [Q, k] of float32.
  """

  records: np.ndarray
  distances: np.ndarray


def nearest(
  run: trained.Trained,
  prepared: records.PreparedSet,
  queries: np.ndarray,
  *,
  count: int = 6,
  layer: str = '',
  split: str = 'train',
  batch_size: int = 128,
  path: pathlib.Path | None = None,
) -> Neighbours:
  """Finds the images of a split that are nearest to each query.

  Distances are sums of squared differences in float32 (the expansion with
  products would cancel). Ties go to the lower record; but what a network makes
  of one image can differ in the last bit with its place in a batch.

  Args:
    run: the network.
    prepared: the data.
    queries: [Q, S, S, 3] of uint8, whole images.
    count: k.
    layer: whose output to compare, flattened; '' for the last hidden layer.
    split: 'train' or 'validation'.
    batch_size: images of the split at a time.
    path: a file that keeps the split's features, see `feature_file`; read
      where it exists, and written where it does not.

  Raises:
    UserError: where layer or split do not exist, batches do not divide among
      the devices, or the file belongs to something else.
  """
  parallel.check_batch_size(run.plan, batch_size)
  layer = layer or features.last_hidden(run.config.model)
  wanted = features.extract(run, queries, layer).reshape(len(queries), -1)
  source = _batches(run, prepared, layer, split, batch_size, path)
  total = -(-prepared.num_examples(split) // batch_size)
  bar = tqdm.tqdm(source, total=total, unit='batch', leave=False)
  return _rank(run.plan, wanted, bar, count)


def _batches(
  run: trained.Trained,
  prepared: records.PreparedSet,
  layer: str,
  split: str,
  batch_size: int,
  path: pathlib.Path | None,
) -> Iterator[_Batch]:
  """From the file where it exists, else from the network."""
  file = None
  if path is not None:
    wanted = feature_file.identity(run, prepared, layer, split)
    file = feature_file.FeatureFile(path, wanted)
    if file.exists:
      return _stored_batches(run.plan, file, batch_size)
  computed = features.batches(run, prepared, layer, split, batch_size)
  return computed if file is None else _kept_batches(run.plan, file, computed)


def _stored_batches(
  plan: parallel.Plan, file: feature_file.FeatureFile, batch_size: int
) -> Iterator[_Batch]:
  for number, made in enumerate(file.read(batch_size)):
    padding = batch_size - len(made)
    mask = np.arange(batch_size) < len(made)
    padded = np.pad(made, ((0, padding), (0, 0)))
    yield (
      plan.put_batch(padded),
      {
        'record': np.arange(batch_size, dtype=np.int32) + number * batch_size,
        'mask': mask.astype(np.float32),
      },
    )


def _kept_batches(
  plan: parallel.Plan,
  file: feature_file.FeatureFile,
  batches: Iterator[_Batch],
) -> Iterator[_Batch]:
  """The same batches, written on the way."""
  with file.writer() as writer:
    for made, places in batches:
      host = plan.get_batch(made)[places['mask'] > 0]
      writer.append(host.reshape(len(host), -1))
      yield made, places


def _rank(
  plan: parallel.Plan, wanted: np.ndarray, batches: Iterator[_Batch], count: int
) -> Neighbours:
  step = plan.compile(_rank_batch, deterministic=False, donate=False)
  best = ranking.start(plan, len(wanted), count, ('record',))
  wanted = plan.put_state(wanted, False)
  best = ranking.fold(
    plan,
    lambda best, made, places: step(best, wanted, made, places),
    best,
    batches,
  )
  return Neighbours(best['record'], np.sqrt(-best['score']))


def _rank_batch(
  best: ranking.Ranking,
  wanted: jax.Array,
  made: jax.Array,
  places: dict[str, jax.Array],
) -> ranking.Ranking:
  """The per-device program: queries [Q, D] against features [b, ...]."""
  made = made.reshape(made.shape[0], -1)
  squares = lax.map(functools.partial(_squared_distances, made), wanted)
  scores = jnp.where(places['mask'] > 0, -squares, -jnp.inf)  # [Q, b]
  numbers = jnp.broadcast_to(places['record'], scores.shape)
  return ranking.merge(best, {'score': scores, 'record': numbers})


def _squared_distances(made: jax.Array, query: jax.Array) -> jax.Array:
  """[b, D] and [D] -> [b]."""
  return jnp.square(made - query).sum(axis=1)
