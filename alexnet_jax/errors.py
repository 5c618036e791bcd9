"""Errors that end a program with one sentence, and how others become them."""

import contextlib
import errno
import os
import pathlib
import zipfile
from collections.abc import Iterable, Iterator

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
  """A mistake of the user, in one sentence.

  The sentence names the argument, its value and the remedy. Entry points print
  it without a traceback and exit with code 1.
  """


class Interrupted(Exception):
  """A signal that has asked the process to stop.

  Entry points exit with 128 + its number, as shells do.

  Attributes:
    number: Number of the signal.
  """

  def __init__(self, number: int, message: str = ''):
    super().__init__(message)
    self.number = number


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, to quote in a sentence."""
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__


def listed(names: Iterable[str], most: int = 5) -> str:
  """Returns the first of some names in order, to quote in a sentence."""
  ordered = sorted(names)
  return ', '.join(ordered[:most]) + (', ...' if ordered[most:] else '')


@contextlib.contextmanager
def damage_as_user_error(path: pathlib.Path, remedy: str) -> Iterator[None]:
  """Turns the many errors of a damaged file into one UserError.

  Args:
    path: File of JSON or of numpy arrays that is read inside.
    remedy: Advice for a file that is damaged.

  Raises:
    UserError: If the file is not as it was written.
  """
  try:
    yield
  except (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    NotImplementedError,  # of zipfile
    zipfile.BadZipFile,
  ) as error:
    raise UserError(
      f'{path} is damaged ({first_line(error)}); {remedy}.'
    ) from error


@contextlib.contextmanager
def no_room_as_os_error(path: pathlib.Path) -> Iterator[None]:
  """Turns other libraries' errors about a full disk into OSError.

  Args:
    path: File or directory that is written inside.

  Raises:
    OSError: If the disk is full.
  """
  try:
    yield
  except (RuntimeError, ValueError) as error:
    for number in NO_ROOM:
      if os.strerror(number) in str(error):
        raise OSError(number, os.strerror(number), str(path)) from error
    raise
