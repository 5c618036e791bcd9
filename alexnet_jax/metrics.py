"""Errors as the paper counts them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, Any]
NAMES = ('loss', 'top1_error', 'top5_error', 'examples')


def zeros() -> dict[str, np.ndarray]:
  """Sums over no example."""
  return {name: np.zeros((), np.float32) for name in NAMES}


def sums(
  log_probs: jax.Array, labels: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """Adds up a batch.

  Args:
    log_probs: [N, classes], natural logarithms of probabilities.
    labels: [N].
    mask: [N], 1 for examples that count and 0 for padding.

  Returns:
    Sums of negative log-likelihood, top-1 errors, top-5 errors (of the
    min(5, classes) most likely) and examples.
  """
  values = per_example(log_probs, labels) | {'examples': jnp.ones_like(mask)}
  return {k: jnp.where(mask > 0, v, 0.0).sum() for k, v in values.items()}


def per_example(
  log_probs: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
  """What `sums` adds up: loss and errors of each example, arrays [N]."""
  classes = log_probs.shape[1]
  own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)  # [N, 1]
  # How many classes are ahead; ties go to the lower label. Written so that
  # NaN counts as an error.
  tied = (log_probs == own) & (jnp.arange(classes) < labels[:, None])
  rank = (~(log_probs <= own) | tied).sum(axis=1)
  return {
    'loss': -own[:, 0],
    'top1_error': rank >= 1,
    'top5_error': rank >= min(5, classes),
  }


def means(totals: Sums) -> dict[str, float | int]:
  """Sums -> means, with the number of examples."""
  count = int(totals['examples'])
  rates = {k: float(totals[k]) / count for k in NAMES if k != 'examples'}
  return rates | {'examples': count}
