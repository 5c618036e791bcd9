"""Several processes that train one run: who writes, and what all agree on.

With one process, nothing here has an effect.
"""

import contextlib
import os
import pickle
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from alexnet_jax import errors

T = TypeVar('T')
# A process without a sign of life for so long ends the others.
HEARTBEAT_SECONDS = 60
# Time for the processes of a run to reach the same place.
SYNC_MINUTES = 10
# Time between two looks for an error of another process.
_LOOK_SECONDS = 1
# Process 0 ends last: with it, the others lose the connection.
_LAST_SECONDS = 4
_ERROR = 'alexnet_jax/error'


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


def _client() -> Any:
  """Returns the client of the coordinator, which has no public name in JAX."""
  from jax._src import distributed

  return distributed.global_state.client


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
  """Ends all processes within seconds after an error in one of them.

  Each process prints its own error first. The first error of all, with its
  process and host, is the last line of every log, and the exit code is 1.
  """
  if jax.process_count() == 1:
    yield
    return
  over = threading.Event()
  watcher = threading.Thread(target=_end_with_first_error, args=[over])
  watcher.start()
  try:
    yield
  except errors.Interrupted:  # stops all processes at the same step
    raise
  except BaseException as error:
    if not isinstance(error, errors.UserError):
      traceback.print_exc()
    _report(error)
    watcher.join()  # ends this process
  finally:
    over.set()


def _report(error: BaseException) -> None:
  """Tells the coordinator an error, unless it knows an earlier one."""
  about = errors.first_line(error)
  if not isinstance(error, errors.UserError):
    about = f'{type(error).__name__}: {about}'
  host = socket.gethostname()
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    text = f'process {jax.process_index()} on {host}: {about}'
    _client().key_value_set(_ERROR, text)


def _end_with_first_error(over: threading.Event) -> None:
  """Waits for an error of any process, prints it and ends this process."""
  while not over.wait(_LOOK_SECONDS):
    try:
      error = _client().key_value_try_get(_ERROR)
    except jax.errors.JaxRuntimeError:  # there is none
      continue
    time.sleep(_LAST_SECONDS if is_primary() else _LOOK_SECONDS)
    sys.stdout.flush()
    print(f'error: {error}', file=sys.stderr, flush=True)
    os._exit(1)  # JAX's own end would wait for the others


def sync(place: str, minutes: float = SYNC_MINUTES) -> None:
  """Waits until all processes have reached this place of the program.

  Args:
    place: Name of the place, for the message.
    minutes: Longest time to wait.

  Raises:
    UserError: If a process does not come; the message names it.
  """
  if jax.process_count() == 1:
    return
  try:
    _client().wait_at_barrier(place, int(minutes * 60_000))
  except jax.errors.JaxRuntimeError as error:
    missing = ', '.join(re.findall(r'^\d+$', str(error), re.MULTILINE))
    raise errors.UserError(
      f'{place}: process {missing or "of another host"} has not come within '
      f'{minutes:g} minutes; see its log, and start all processes again.'
    ) from error


def broadcast(value: T) -> T:
  """Returns the value that the primary process has passed.

  Nothing goes through files, which another host may see late.

  Args:
    value: Any value that can be pickled; ignored in other processes.
  """
  if jax.process_count() == 1:
    return value
  data = pickle.dumps(value) if is_primary() else b''
  size = multihost_utils.broadcast_one_to_all(np.int32(len(data)))
  padded = np.frombuffer(data.ljust(int(size), b'\0'), np.uint8)
  return pickle.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def check_same(values: Mapping[str, object]) -> None:
  """Compares what the processes were started with.

  Args:
    values: Values by name, which `json` can write.

  Raises:
    UserError: In all processes, with the first process and host that differ.
  """
  if jax.process_count() == 1:
    return
  mine = pickle.dumps({'host': socket.gethostname(), **values})
  sizes = multihost_utils.process_allgather(np.int32(len(mine)))
  padded = np.frombuffer(mine.ljust(int(sizes.max()), b'\0'), np.uint8)
  first, *others = (
    pickle.loads(row.tobytes())
    for row in multihost_utils.process_allgather(padded)
  )
  for number, other in enumerate(others, 1):
    for name in values:
      if other.get(name) != first.get(name):
        raise errors.UserError(
          f'process {number} on {other["host"]} has {name}={other.get(name)} '
          f'but process 0 on {first["host"]} has {first.get(name)}; start all '
          'with the same config, data, code and packages.'
        )


def log(text: str) -> None:
  """Prints a line, in the primary process only, beside the progress bar."""
  if is_primary():
    tqdm.tqdm.write(text)
    sys.stdout.flush()  # a log file shows the line now, and keeps it at a kill
