"""Files that are whole or absent, even after a kill or a power cut."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """Opens a new file that replaces `path` when it is complete.

  Args:
    path: File that readers see as it was before, or as it is after.
  """
  new = path.with_name(f'{path.name}.new')
  with new.open('wb') as file:
    yield file
    file.flush()
    os.fsync(file.fileno())
  os.replace(new, path)
  _sync(path.parent)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file that replaces the one of this name, if there is one."""
  with replacing(path) as file:
    file.write(text.encode())


def rename_directory(old: pathlib.Path, new: pathlib.Path) -> None:
  """Gives a directory its final name when all of its files are on the disk."""
  for path in old.iterdir():
    _sync(path)
  _sync(old)
  os.rename(old, new)
  _sync(new.parent)


def _sync(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a directory, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
