"""Common part of the processes that `experiments.benchmarks.input` measures."""

import dataclasses
import functools
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from experiments.benchmarks import contest, machine

# Batches that a loader, or each of its workers, holds ready.
AHEAD = 4
# Files are read and code is compiled first.
_WARM_UP_SECONDS = 2.0
_PACKAGES = (
  'tensorflow',
  'tensorflow-cpu',
  'array_record',
  'numpy',
  'torch',
  'torchvision',
  'pillow',
)


@dataclasses.dataclass(frozen=True)
class Job:
  """A job of a loader.

  Attributes:
    loader: Name of the loader.
    directory: Place of the images, see `input.write_images`.
    workers: Number of threads or processes that load.
    batch_size: Images a batch.
    seed: Seed of whatever can be seeded.
    data: `config.data`, as a dictionary.
  """

  loader: str
  directory: str
  workers: int
  batch_size: int
  seed: int
  data: dict

  def files(self, folder: str) -> list[str]:
    """Returns the paths of the images in a folder."""
    return sorted(map(str, pathlib.Path(self.directory, folder).iterdir()))


Loader = Callable[[Job], Iterator[Any]]


def serve(loaders: dict[str, Loader]) -> None:
  """Measures the loader that the job names, as a contender of `contest`."""
  contest.serve(functools.partial(_create, loaders))


def _create(
  loaders: dict[str, Loader], values: dict
) -> tuple[dict[str, contest.Measure], dict]:
  job = Job(**values)
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))[: job.workers]
    os.sched_setaffinity(0, cores)
  batches = loaders[job.loader](job)
  _check(next(batches), job)

  def measure(seconds: float) -> tuple[int, float]:
    """Counts whole turns of the workers, whose batches often end together."""
    ready = (AHEAD + 1) * job.workers
    for _ in itertools.islice(batches, ready):
      pass
    began, elapsed, count = time.perf_counter(), 0.0, 0
    while elapsed < seconds or count % job.workers:
      next(batches)
      count += 1
      elapsed = time.perf_counter() - began
    return count * job.batch_size, elapsed

  measure(_WARM_UP_SECONDS)
  return {'load': measure}, {'versions': machine.versions(_PACKAGES)}


def _check(batch, job: Job) -> None:
  size = job.data['crop_size']
  shapes = [(job.batch_size, size, size, 3), (job.batch_size, 3, size, size)]
  if tuple(batch.shape) not in shapes or 'uint8' not in str(batch.dtype):
    raise ValueError(f'batches are {batch.shape} of {batch.dtype}')
