"""Training without files: programs, states and batches made in memory."""

import ml_collections
import numpy as np

from alexnet_jax import durations, metrics, parallel, train_state, train_step
from alexnet_jax.data import pipeline, preprocessing

EXAMPLES = 64


def preprocessing_of(config: ml_collections.ConfigDict):
  """Around mid grey, with three components of colour."""
  size = config.data.image_size
  return preprocessing.Preprocessing(
    mean_image=np.full((size, size, 3), 127.5, np.float32),
    eigenvalues=np.array([9e3, 4e2, 9e1], np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
    scale=np.float32(config.data.scale),
    crop_size=np.int32(config.data.crop_size),
  )


def program_of(
  config: ml_collections.ConfigDict, plan: parallel.Plan | None = None
) -> train_step.Program:
  plan = plan or parallel.make_plan(config.model.towers, config.num_devices)
  steps = durations.count_steps(config, EXAMPLES)
  process = preprocessing_of(config)
  return train_step.create_program(config, plan, process, steps)


def batch_of(config: ml_collections.ConfigDict, step: int) -> pipeline.Batch:
  """Noise in which the label's colour channel is brighter, round and round."""
  places = step * config.batch_size + np.arange(config.batch_size)
  records, size = places % EXAMPLES, config.data.crop_size
  images = np.random.default_rng(0).integers(0, 160, (EXAMPLES, size, size, 3))
  images[range(EXAMPLES), ..., np.arange(EXAMPLES) % 3] += 60
  return {
    'image': images[records].astype(np.uint8),
    'label': (records % 3).astype(np.int32),
    'index': places.astype(np.uint32),
  }


class Run:
  """A compiled step and its state.

  Attributes:
    state: on the plan's devices.
  """

  def __init__(self, config: ml_collections.ConfigDict, state=None):
    """`state` is the canonical one; by default that of the config's seed."""
    self._config, self._program = config, program_of(config)
    self._step = self._program.compile()
    self.put(state or train_state.create_train_state(config))

  def put(self, state: train_state.TrainState) -> None:
    """Goes on from a canonical state."""
    self.state = self._program.put_state(state)

  def step(self) -> float:
    """Does one; its loss."""
    plan = self._program.plan
    number = int(plan.get(self.state.step))
    batch = plan.put_batch(batch_of(self._config, number))
    self.state, sums = self._step(self.state, batch)
    return metrics.means(plan.get(sums))['loss']

  def losses(self, count: int) -> np.ndarray:
    """Of the next `count` steps."""
    return np.array([self.step() for _ in range(count)])

  def canonical(self) -> train_state.TrainState:
    """The state as a checkpoint would hold it."""
    return self._program.get_state(self.state)
