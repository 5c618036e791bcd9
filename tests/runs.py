"""What a run has left, to compare with another's."""

import pathlib

import jax
import numpy as np

from alexnet_jax import checkpoint, train_state
from alexnet_jax import rows as rows_lib


def rows(workdir: pathlib.Path) -> list[dict]:
  """Of metrics.jsonl, without what depends on the time of day."""
  read = rows_lib.read(workdir)
  return [{k: v for k, v in row.items() if k != 'timing'} for row in read]


def newest(workdir: pathlib.Path, config) -> train_state.TrainState:
  """The newest checkpoint's state."""
  with checkpoint.Checkpointer(workdir) as checkpointer:
    like = train_state.abstract_train_state(config)
    return checkpointer.restore(0, like)[0]


def assert_same(a, b) -> None:
  """Bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, a, b)
