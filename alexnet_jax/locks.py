"""Locks on files, and leases where a lock may not reach other hosts."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO

from absl import logging

from alexnet_jax import atomic, errors

# Errors of file systems that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
# A live process renews its lease so often.
_BEAT_SECONDS = 5
# A lease that does not change for so long is of a dead process.
_DEAD_SECONDS = 30
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')


def take(file: IO, *, wait: bool) -> bool:
  """Locks an open file; a file system without locks gives a warning only.

  The lock ends with the process that holds it.

  Args:
    file: File that all processes open.
    wait: Whether to wait for the process that holds the lock.

  Returns:
    Whether this process may go on.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    logging.warning(
      '%s cannot be locked: use its directory from one process at a time',
      file.name,
    )
  return True


@contextlib.contextmanager
def alone(path: pathlib.Path, work: str) -> Iterator[None]:
  """Waits until no other process holds a lock, and holds it inside.

  Args:
    path: Lock file, which is made and stays.
    work: What a process does while it holds the lock, as 'prepares data/x'.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w') as file:
    if not take(file, wait=False):
      print(f'Waiting for the process that {work}.')
      take(file, wait=True)
    yield


@contextlib.contextmanager
def lease(path: pathlib.Path) -> Iterator[None]:
  """Keeps a file that tells other hosts which process works in a directory.

  The file names host and process and changes every few seconds. NFS and Lustre
  may be mounted without locks between hosts, so that a lock alone does not
  keep a second host out. A process whose lease was taken over, because it was
  suspended for long, ends at once.

  Args:
    path: File of the lease.

  Raises:
    UserError: If another process keeps it.
  """
  _check_free(path)
  mine = {'host': platform.node(), 'boot': _boot(), 'pid': os.getpid()}
  _write(path, mine, 0)
  over = threading.Event()
  beat = threading.Thread(target=_renew, args=(path, mine, over), daemon=True)
  beat.start()
  try:
    yield
  finally:
    over.set()
    beat.join()
    path.unlink(missing_ok=True)


def _boot() -> str:
  """Returns what tells this start of this machine from all others."""
  return _BOOT.read_text().strip() if _BOOT.exists() else platform.node()


def _write(path: pathlib.Path, owner: dict, beat: int) -> None:
  atomic.write_text(path, json.dumps(owner | {'beat': beat}))


def _read(path: pathlib.Path) -> dict:
  """Returns the content of a lease, {} if there is none or it is damaged."""
  try:
    return dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError):
    return {}


def _check_free(path: pathlib.Path) -> None:
  """Raises UserError if a process renews the lease."""
  found = _read(path)
  if not found or _is_dead(found):
    return
  holder = f'process {found.get("pid")} on {found.get("host")}'
  print(
    f'{path} is of {holder}: waiting {_DEAD_SECONDS} s to see whether that '
    'still trains here.',
    flush=True,
  )
  end = time.monotonic() + _DEAD_SECONDS
  while time.monotonic() < end:
    time.sleep(0.1 * _BEAT_SECONDS)
    if _read(path) not in (found, {}):
      raise errors.UserError(
        f'workdir={path.parent}: {holder} trains there; wait for its end, or '
        'give a new workdir.'
      )


def _is_dead(found: dict) -> bool:
  """Returns whether a lease is of a process of this machine that has ended."""
  pid = found.get('pid')
  if found.get('boot') != _boot() or not isinstance(pid, int):
    return False
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  except PermissionError:  # of another user
    return False
  return pid == os.getpid()


def _renew(path: pathlib.Path, mine: dict, over: threading.Event) -> None:
  """Renews a lease until it is over; ends the process if it was taken over."""
  beat = 0
  while not over.wait(_BEAT_SECONDS):
    found = _read(path)
    if found and {key: found.get(key) for key in mine} != mine:
      print(
        f'error: workdir={path.parent}: process {found.get("pid")} on '
        f'{found.get("host")} has taken over; this one ends.',
        file=sys.stderr,
        flush=True,
      )
      os._exit(1)  # nothing of the other process may be overwritten
    beat += 1
    with contextlib.suppress(OSError):  # the next beat may find the disk again
      _write(path, mine, beat)
