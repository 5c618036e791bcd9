"""What a user's mistake ends in."""

import contextlib
import errno
import os
import pathlib
import zipfile
from collections.abc import Iterator

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
  """What the user gave cannot work; the message is one sentence that says so.

  It names the argument, its value and the remedy. Entry points print it
  without a traceback and exit with code 1.
  """


class Interrupted(Exception):
  """A signal has asked the process to stop.

  Entry points exit with 128 + its number, as shells have it.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int, message: str = ''):
    super().__init__(message)
    self.number = number


def first_line(error: Exception) -> str:
  """The first line of another library's message, to quote in a sentence."""
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def damage_as_user_error(path: pathlib.Path, remedy: str) -> Iterator[None]:
  """For reading a file that we have written: JSON, or arrays of numpy.

  Args:
    path: of the file.
    remedy: what to do where it is not as it was written.

  Raises:
    UserError: in place of the many errors of a file that is not.
  """
  try:
    yield
  except (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
  ) as error:
    raise UserError(
      f'{path} is damaged ({first_line(error)}); {remedy}.'
    ) from error


@contextlib.contextmanager
def no_room_as_os_error(path: pathlib.Path) -> Iterator[None]:
  """Other libraries have their own ways to say that a disk is full.

  Args:
    path: what is written.

  Raises:
    OSError: in place of their errors.
  """
  try:
    yield
  except (RuntimeError, ValueError) as error:
    for number in NO_ROOM:
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number), str(path)) from error
    raise
