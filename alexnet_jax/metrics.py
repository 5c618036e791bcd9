"""Loss and errors as the paper counts them, as sums over examples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, Any]
NAMES = ('loss', 'top1_error', 'top5_error', 'examples')


def zeros() -> dict[str, np.ndarray]:
  """Returns the sums of training metrics over no example."""
  return {k: np.zeros((), np.float32) for k in (*NAMES, 'gradient_norm')}


def sums(
  log_probs: jax.Array, labels: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """Returns the sums over a batch.

  Args:
    log_probs: [N, classes], natural logarithms of probabilities.
    labels: [N] of int32.
    mask: [N], 1 for examples that count and 0 for padding.

  Returns:
    Sums of negative log-likelihood, top-1 errors, top-5 errors (of the
    min(5, classes) most likely classes) and examples.
  """
  values = per_example(log_probs, labels) | {'examples': jnp.ones_like(mask)}
  return {k: jnp.where(mask > 0, v, 0.0).sum() for k, v in values.items()}


def per_example(
  log_probs: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
  """Returns loss and errors of each example, arrays [N]; see `sums`."""
  classes = log_probs.shape[1]
  own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)  # [N, 1]
  # Counts the classes that are more likely; of equally likely ones, those with
  # a lower label. Written so that NaN counts as an error.
  tied = (log_probs == own) & (jnp.arange(classes) < labels[:, None])
  rank = (~(log_probs <= own) | tied).sum(axis=1)
  return {
    'loss': -own[:, 0],
    'top1_error': rank >= 1,
    'top5_error': rank >= min(5, classes),
  }


def class_sums(
  log_probs: jax.Array, labels: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """Returns examples and top-1 errors of each class, [classes]; see `sums`."""
  wrong = per_example(log_probs, labels)['top1_error']
  nothing = jnp.zeros(log_probs.shape[1])
  return {
    'class_examples': nothing.at[labels].add(mask),
    'class_errors': nothing.at[labels].add(mask * wrong),
  }


def means(totals: Sums) -> dict[str, float | int]:
  """Returns means over the examples, and the number of examples.

  Sums of each class are left out.
  """
  count = int(totals['examples'])
  sums_ = {k: v for k, v in totals.items() if np.ndim(v) == 0}
  rates = {k: float(v) / count for k, v in sums_.items() if k != 'examples'}
  return {k: rates[k] for k in NAMES[:-1]} | {'examples': count} | rates
