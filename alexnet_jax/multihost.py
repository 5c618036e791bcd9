"""Several processes that train one run: who writes, and what all agree on.

With one process, nothing here has an effect.
"""

import sys

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from alexnet_jax import errors

# A process without a sign of life for so long ends the others.
HEARTBEAT_SECONDS = 60


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Connects this process with the others of its run.

  Args:
    coordinator: HOST:PORT of process 0. With None for all three arguments, the
      cluster is asked (SLURM, Open MPI, Kubernetes, TPU pods).
    num_processes: Total number of processes in the run.
    process_id: Number of this process, from 0.

  Raises:
    UserError: If no connection can be made.
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


def is_primary() -> bool:
  """Returns whether this process is the one that writes files."""
  return jax.process_index() == 0


def sync(place: str) -> None:
  """Waits until all processes have reached this place of the program."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(place)


def broadcast(number: int) -> int:
  """Returns the number that the primary process has passed."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def log(text: str) -> None:
  """Prints a line, in the primary process only, beside the progress bar."""
  if is_primary():
    tqdm.tqdm.write(text)
    sys.stdout.flush()  # a log file shows the line now, and keeps it at a kill
