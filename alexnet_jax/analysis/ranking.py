"""The highest scores of what streams by, kept on the devices.

A ranking has R rows of k places, best first: 'score' [R, k] of float32, and
whatever else belongs to a place, such as 'record', of int32. Each slice of the
plan ranks what it sees; `collect` puts the slices together.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax import parallel

Ranking = dict[str, Any]


def start(
  plan: parallel.Plan, rows: int, count: int, tags: tuple[str, ...]
) -> Ranking:
  """An empty ranking on the devices, with `tags` beside the score."""
  shape = (plan.num_slices * rows, count)
  scores = np.full(shape, -np.inf, np.float32)
  return plan.put_batch(
    {'score': scores, **{tag: np.full(shape, -1, np.int32) for tag in tags}}
  )


def fold(
  plan: parallel.Plan,
  step: Callable[[Ranking, jax.Array, Any], Ranking],
  best: Ranking,
  batches: Iterable[tuple[jax.Array, dict[str, np.ndarray]]],
) -> dict[str, np.ndarray]:
  """Ranks a stream, one batch ahead of the devices at most.

  Args:
    plan: how the work is spread.
    step: merges a batch into a ranking, both on the devices.
    best: see `start`.
    batches: features on the devices, and host arrays that belong to them.

  Returns:
    See `collect`.
  """
  for made, places in batches:
    before = best
    best = step(best, made, plan.put_batch(places))
    jax.block_until_ready(before)  # or batches would pile up
  return collect(plan, best)


def merge(ranking: Ranking, new: Ranking) -> Ranking:
  """Inside the program: a slice's ranking [R, k] with `new` [R, b] in it.

  Of equal scores the earlier stays ahead.
  """
  count = ranking['score'].shape[1]
  both = jax.tree.map(
    lambda old, more: jnp.concatenate([old, more], axis=1), ranking, new
  )
  _, order = lax.top_k(both['score'], count)  # stable
  return jax.tree.map(lambda x: jnp.take_along_axis(x, order, axis=1), both)


def collect(plan: parallel.Plan, ranking: Ranking) -> dict[str, np.ndarray]:
  """All slices' places as one ranking: numpy [R, k], ties by lower record."""
  host = plan.get_batch(ranking)
  rows, count = len(host['score']) // plan.num_slices, host['score'].shape[1]

  def side_by_side(x: np.ndarray) -> np.ndarray:
    slices = x.reshape(plan.num_slices, rows, count)
    return slices.transpose(1, 0, 2).reshape(rows, -1)

  both = {name: side_by_side(x) for name, x in host.items()}
  order = np.lexsort((both['record'], -both['score']))[:, :count]
  return {name: np.take_along_axis(x, order, 1) for name, x in both.items()}
