"""One process at a time: locks of files, which end with their process."""

import errno
import fcntl
from typing import IO

from absl import logging

# Of file systems that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def take(file: IO, *, wait: bool) -> bool:
  """Locks an open file; where that cannot be done at all, warns and goes on.

  Args:
    file: that all processes open.
    wait: whether to wait for a process that has the lock.

  Returns:
    Whether this process may go on; False where it does not wait.
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
