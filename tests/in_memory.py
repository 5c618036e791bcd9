"""Training without files: programs, states and batches made in memory."""

import ml_collections
import numpy as np

from alexnet_jax import metrics, train_step
from alexnet_jax import run as run_lib
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


def run_of(config: ml_collections.ConfigDict) -> run_lib.Run:
  """Returns the run of a config, with `EXAMPLES` images an epoch."""
  return run_lib.build_run(config, preprocessing_of(config), EXAMPLES)


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


class Training:
  """A run without files, and its state.

  Attributes:
    state: State on the devices.
  """

  def __init__(self, config: ml_collections.ConfigDict, state=None):
    """`state` is canonical; by default the initial one of the config's seed."""
    self.run = run_of(config)
    self._rate_scale = self.run.put_everywhere(np.float32(1))
    self.put(state or train_step.create_train_state(config))

  def put(self, state: train_step.TrainState) -> None:
    """Goes on from a canonical state."""
    self.state = self.run.put_state(state)

  def step(self) -> float:
    """Makes a step and returns its loss."""
    plan = self.run.plan
    number = int(plan.get(self.state.step))
    batch = plan.put_batch(batch_of(self.run.config, number))
    self.state, sums = self.run.train_step(self.state, batch, self._rate_scale)
    return metrics.means(plan.get(sums))['loss']

  def losses(self, count: int) -> np.ndarray:
    """Returns the losses of the next `count` steps."""
    return np.array([self.step() for _ in range(count)])

  def canonical(self) -> train_step.TrainState:
    """Returns the state as a checkpoint would hold it."""
    return self.run.get_state(self.state)
