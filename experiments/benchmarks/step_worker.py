"""Common part of the processes that `experiments.benchmarks.step` measures."""

import collections
import functools
import resource
import time
from collections.abc import Callable
from typing import Protocol

import ml_collections
import numpy as np

from experiments.benchmarks import contest, machine

# Long enough for PyTorch's velocities and the capture of CUDA graphs.
_WARM_UP_SECONDS = 1.0
# Starts work; returns a function that waits for its end.
Start = Callable[[], Callable[[], object]]


class Step(Protocol):
  """A network on a batch, built from a config.

  Attributes:
    train: Starts an update.
    evaluate: Starts an evaluation.
    gpu_memory: Returns the most bytes of the GPU in use so far, or None without
      a GPU.
  """

  train: Start
  evaluate: Start
  gpu_memory: Callable[[], int | None]


def serve(step: Callable[..., Step]) -> None:
  """Measures a training step, as a contender of `contest`.

  Args:
    step: Function of (config, batch, options of the contender).
  """
  contest.serve(functools.partial(_create, step))


def _create(
  create_step: Callable[..., Step], job: dict
) -> tuple[dict[str, contest.Measure], dict]:
  config = ml_collections.ConfigDict(job['config'])
  step = create_step(config, random_batch(config), **job['options'])
  on_gpu = step.gpu_memory() is not None
  # Two as in training, but one on CPUs: another would only lengthen a turn.
  measures = {
    what: timed(getattr(step, what), config.batch_size, 1 + on_gpu)
    for what in job['measures']
  }
  for measure in measures.values():
    measure(_WARM_UP_SECONDS)
  used = 2**10 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return measures, {
    'peak_memory_gib': (step.gpu_memory() if on_gpu else used) / 2**30,
    'versions': machine.versions(('jax', 'flax', 'torch')),
  }


def random_batch(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """Returns a batch of noise: crops as 'image', and 'whole' images."""
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


def timed(start: Start, images: int, in_flight: int) -> contest.Measure:
  """Returns a measure that works until the time is over, once at least.

  Work that does not count comes first: some systems take memory from a process
  that was stopped, and the first step would wait to get it back.
  """

  def measure(seconds: float) -> tuple[int, float]:
    start()()
    began, elapsed, count = time.perf_counter(), 0.0, 0
    waits = collections.deque()
    while elapsed < seconds or not count:
      waits.append(start())
      count += 1
      if len(waits) == in_flight:
        waits.popleft()()
      elapsed = time.perf_counter() - began
    for wait in waits:
      wait()
    return count * images, time.perf_counter() - began

  return measure


def jax_memory() -> int | None:
  """Returns `Step.gpu_memory` of a step on JAX's first device."""
  import jax

  if jax.default_backend() == 'cpu':
    return None
  return jax.devices()[0].memory_stats()['peak_bytes_in_use']
