"""The project's own training step, also without one of its tricks."""

import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from alexnet_jax import run, train_step
from alexnet_jax.data import preprocessing
from experiments.benchmarks import step_worker, tricks

# Colour noise and schedules are those of the full set.
_NUM_EXAMPLES = 1_281_167


class Step:
  """The project's training step and evaluation on one batch.

  Args:
    config: Config of the network.
    batch: Result of `step_worker.random_batch`.
    without: Trick to leave out, see `tricks`; '' for none.
  """

  gpu_memory = staticmethod(step_worker.jax_memory)

  def __init__(
    self, config: ml_collections.ConfigDict, batch: dict, without: str = ''
  ):
    built = run.build_run(config, _preprocessing(config), _NUM_EXAMPLES)
    self._program = built.train_program
    self._without = without
    self._update = built.plan.compile(
      built.train_program,
      deterministic=config.deterministic,
      donate=without != tricks.NOT_DONATED,
    )
    self._evaluate = built.eval_step
    self._state = built.put_state(train_step.create_train_state(config))
    self._scale = built.put_everywhere(np.float32(1))
    train = {name: batch[name] for name in ('image', 'label', 'index')}
    whole = {name: batch[name] for name in ('label', 'mask')}
    self._train_batch = built.plan.put_batch(train)
    self._eval_batch = built.plan.put_batch({'image': batch['whole'], **whole})

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    with tricks.left_out(self._without):  # the first call traces
      self._state, sums = self._update(
        self._state, self._train_batch, self._scale
      )
    return functools.partial(jax.block_until_ready, sums)

  def lower_train(self) -> tuple[jax.stages.Lowered, tuple]:
    """Returns the program of an update on one device, and its arguments."""
    arguments = (self._state, self._train_batch, self._scale)
    jitted = jax.jit(self._program, donate_argnums=0)
    return jitted.lower(*arguments), arguments

  def evaluate(self) -> Callable[[], None]:
    """Starts the sums of metrics over one batch."""
    sums = self._evaluate(self._state.variables, self._eval_batch)
    return functools.partial(jax.block_until_ready, sums)


def _preprocessing(
  config: ml_collections.ConfigDict,
) -> preprocessing.Preprocessing:
  """Returns one with made-up statistics: they cost the same."""
  size = config.data.crop_size
  return preprocessing.Preprocessing(
    mean_image=np.full((size, size, 3), 120, np.float32),
    eigenvalues=np.array([12e3, 8e2, 3e2], np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
    scale=np.float32(config.data.scale),
    crop_size=np.int32(size),
  )


if __name__ == '__main__':
  step_worker.serve(Step)
