"""A loader's process, for `contest`.

python -m experiments.input_loaders.worker JOB
"""

from experiments.benchmarking import machine, worker
from experiments.input_loaders import contenders

# Seconds at the start that count for nothing: files are read, code compiled.
_WARMUP = 2.0


def _create(values: dict) -> tuple[dict[str, worker.Measure], dict]:
  """Opens the contender that the job names, on as many cores as workers."""
  contender = contenders.CONTENDERS[values.pop('contender')]
  job = contenders.Job(**values)
  worker.limit_cores(job.workers)
  batches = contender.open(job)
  if not contender.is_ceiling:
    _check(next(batches), job)

  def measure(seconds: float) -> tuple[int, float]:
    skip = contender.ahead * job.workers
    count, elapsed = worker.timed(batches, seconds, skip, job.workers)
    return count * job.batch_size, elapsed

  measure(_WARMUP)
  versions = machine.versions(contender.packages)
  return {'loader': measure}, {'versions': versions}


def _check(batch, job: contenders.Job) -> None:
  size = job.crop_size
  shapes = [(job.batch_size, size, size, 3), (job.batch_size, 3, size, size)]
  if tuple(batch.shape) not in shapes or 'uint8' not in str(batch.dtype):
    raise ValueError(f'batches are {batch.shape} of {batch.dtype}')


if __name__ == '__main__':
  worker.serve(_create)
