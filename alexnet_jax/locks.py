"""Locks on files; a lock ends with the process that holds it."""

import errno
import fcntl
from typing import IO

from absl import logging

# Errors of file systems that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def take(file: IO, *, wait: bool) -> bool:
  """Locks an open file; a file system without locks gives a warning only.

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
