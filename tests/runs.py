"""What a run has left, to compare with another's."""

import jax
import numpy as np


def assert_same(a, b) -> None:
  """Bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, a, b)
