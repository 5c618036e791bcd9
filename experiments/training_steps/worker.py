"""One contender's process, for `contest`.

python -m experiments.training_steps.worker JOB
"""

import resource
import time
from collections.abc import Callable

import ml_collections
import numpy as np

from experiments.benchmarking import machine, worker

_PRODUCT_SIDE = 4096


def random_batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """A batch of noise, for training and for evaluation."""
  rng = np.random.default_rng(config.seed)
  count, data = config.batch_size, config.data
  shape = (count, data.crop_size, data.crop_size, 3)
  return {
    'image': rng.integers(0, 256, shape, np.uint8),
    'label': rng.integers(0, config.model.num_classes, count, np.int32),
    'index': np.arange(count, dtype=np.uint32),
    'mask': np.ones(count, np.float32),
  }


def timed(
  run: Callable[[], None], images: int
) -> Callable[[float], tuple[int, float]]:
  """A measure of `run`, which is called until the time is over, once at least.

  Args:
    run: works on `images` images, and returns when all is done.
    images: how many.
  """

  def measure(seconds: float) -> tuple[int, float]:
    start, elapsed, count = time.perf_counter(), 0.0, 0
    while elapsed < seconds or not count:
      run()
      count += 1
      elapsed = time.perf_counter() - start
    return count * images, elapsed

  return measure


def _create(job: dict) -> tuple[dict[str, worker.Measure], dict]:
  config = ml_collections.ConfigDict(job['config'])
  if job['framework'] == 'product':
    measures = {'train': timed(_product(), 1)}
  elif job['measures'] == ['layers']:
    measures = _layer_measures(config, job)
  else:
    step = _step(config, job)
    measures = {
      what: timed(getattr(step, what), config.batch_size)
      for what in job['measures']
    }
  for measure in measures.values():
    measure(0.0)
  kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return measures, {
    'measures': list(measures),
    'peak_memory_gib': kib / 2**20,
    'versions': machine.versions(('jax', 'flax', 'torch')),
  }


def _step(config: ml_collections.ConfigDict, job: dict):
  batch = random_batch(config)
  # Each process has only its own framework.
  if job['framework'] == 'alexnet_jax':
    from experiments.training_steps import with_jax as module
  elif job['framework'] == 'flax':
    from experiments.training_steps import with_flax as module
  else:
    from experiments.training_steps import with_torch as module
  return module.Step(config, batch, **job['arguments'])


def _layer_measures(
  config: ml_collections.ConfigDict, job: dict
) -> dict[str, worker.Measure]:
  """Forward, and forward with backward, of each layer by itself."""
  if job['framework'] == 'torch':
    from experiments.training_steps import layers_torch as module
  else:
    from experiments.training_steps import layers_jax as module
  runs = module.layer_runs(config)
  return {what: timed(run, config.batch_size) for what, run in runs.items()}


def _product() -> Callable[[], None]:
  """A large product of float32 matrices."""
  import jax
  import jax.numpy as jnp

  x = jnp.ones((_PRODUCT_SIDE, _PRODUCT_SIDE))
  multiply = jax.jit(jnp.matmul)
  return lambda: jax.block_until_ready(multiply(x, x))


def product_operations() -> int:
  """Operations of one product of the 'product' contender."""
  return 2 * _PRODUCT_SIDE**3


if __name__ == '__main__':
  worker.serve(_create)
