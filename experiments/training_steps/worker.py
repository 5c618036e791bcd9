"""One contender's process, for `contest`.

python -m experiments.training_steps.worker JOB
"""

import collections
import functools
import resource
import time
from collections.abc import Callable

import ml_collections
import numpy as np

from experiments.benchmarking import machine, worker

_PRODUCT_SIDE = 4096
# After the first step: for PyTorch's velocities and the capture of CUDA graphs.
_WARM_UP_SECONDS = 1.0


def random_batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """A batch of noise: crops as 'image', and whole images to take views of."""
  rng = np.random.default_rng(config.seed)
  count, data = config.batch_size, config.data

  def images(side: int) -> np.ndarray:
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)

  return {
    'image': images(data.crop_size),
    'whole': images(data.image_size),
    'label': rng.integers(0, config.model.num_classes, count, np.int32),
    'index': np.arange(count, dtype=np.uint32),
    'mask': np.ones(count, np.float32),
  }


def timed(
  run: worker.Run, images: int, in_flight: int = 1
) -> Callable[[float], tuple[int, float]]:
  """A measure of `run`, which is called until the time is over, once at least.

  Args:
    run: starts work on so many images.
    images: their number.
    in_flight: how many runs may be under way at once.
  """

  def measure(seconds: float) -> tuple[int, float]:
    start, elapsed, count = time.perf_counter(), 0.0, 0
    waits = collections.deque()
    while elapsed < seconds or not count:
      waits.append(run())
      count += 1
      if len(waits) == in_flight:
        waits.popleft()()
      elapsed = time.perf_counter() - start
    for wait in waits:
      wait()
    return count * images, time.perf_counter() - start

  return measure


def _create(job: dict) -> tuple[dict[str, worker.Measure], dict]:
  config, step = ml_collections.ConfigDict(job['config']), None
  if job['framework'] == 'product':
    measures = {'train': _product(config.model.dtype)}
  elif job['measures'] == ['layers']:
    measures = _layer_measures(config, job)
  else:
    step = _step(config, job)
    in_flight = _steps_in_flight(step.is_on_cpu)
    measures = {
      what: timed(getattr(step, what), config.batch_size, in_flight)
      for what in job['measures']
    }
  for measure in measures.values():
    measure(0.0)
    measure(_WARM_UP_SECONDS)
  return measures, {
    'measures': list(measures),
    'peak_memory_gib': _peak_memory(step) / 2**30,
    'versions': machine.versions(('jax', 'flax', 'torch')),
  }


def _steps_in_flight(on_cpu: bool) -> int:
  """Two as in training, but one on CPUs: another would only lengthen a turn."""
  return 1 if on_cpu else 2


def _peak_memory(step) -> int:
  """Bytes: the accelerator's, or else the process's."""
  if step and not step.is_on_cpu:
    return step.peak_memory()
  return 2**10 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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


def _product(dtype: str) -> worker.Measure:
  """Large products of random matrices."""
  import jax

  shape = (_PRODUCT_SIDE, _PRODUCT_SIDE)
  x = jax.random.normal(jax.random.key(0), shape, dtype)
  multiply = jax.jit(jax.numpy.matmul)
  return timed(
    lambda: functools.partial(jax.block_until_ready, multiply(x, x)),
    images=1,
    in_flight=_steps_in_flight(jax.default_backend() == 'cpu'),
  )


def product_operations() -> int:
  """Operations of one product of the 'product' contender."""
  return 2 * _PRODUCT_SIDE**3


if __name__ == '__main__':
  worker.serve(_create)
