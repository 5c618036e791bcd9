"""Several processes, one run: who writes, who waits, what all agree on.

With one process nothing here does anything.
"""

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from alexnet_jax import errors

# After so long without a sign of life from one process, the others end.
HEARTBEAT_SECONDS = 60


def join(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Connects this process with the others of its run.

  Args:
    coordinator: HOST:PORT of process 0; None to ask the cluster (SLURM, Open
      MPI, Kubernetes, TPU pods), as for the others.
    num_processes: of the run.
    process_id: from 0.

  Raises:
    UserError: where that fails.
  """
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    raise errors.UserError(
      f'--coordinator={coordinator} --num_processes={num_processes} '
      f'--process_id={process_id}: no connection ({errors.first_line(error)}); '
      'give all three, or inside a cluster --distributed alone.'
    ) from error


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def wait(place: str) -> None:
  """Returns when all processes have come to this place of the program."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(place)


def agree(number: int) -> int:
  """The first process's number."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def say(text: str) -> None:
  """The first process prints; progress bars stay whole."""
  if is_first():
    tqdm.tqdm.write(text)
