"""Paths that a user has typed, as places on this machine."""

import pathlib
import re

from alexnet_jax import errors

# What a name of a network begins with that ships with the package.
PRETRAINED = 'pretrained:'
_SHIPPED = pathlib.Path(__file__).parent / 'pretrained'
# One slash as well: pathlib makes it of two.
_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')
# orbax searches for files of a checkpoint by patterns that start with its path.
_PATTERN = re.compile(r'[*?\[\\]')


def local(argument: str, text: str | pathlib.Path) -> pathlib.Path:
  """Returns the absolute path that a user's text stands for.

  Args:
    argument: Name of the argument, for the error.
    text: Path, which may start with ~ and be relative.

  Raises:
    UserError: If the text is a URL, or no path that all libraries can open.
  """
  text = str(text)
  if _URL.match(text):
    raise errors.UserError(
      f'{argument}={text} is a URL, and only paths can be read and written: '
      'give a mounted one (gcsfuse and s3fs mount buckets), or copy the files.'
    )
  try:
    text.encode()  # TensorFlow and orbax take no other names
    return pathlib.Path(text).expanduser().resolve()
  except (UnicodeEncodeError, ValueError) as error:
    raise errors.UserError(
      f'{argument}={text!r} is no name in UTF-8: give it another one.'
    ) from error
  except RuntimeError as error:  # no such home, or a circle of links
    raise errors.UserError(
      f'{argument}={text} leads nowhere ({errors.first_line(error)}): write '
      'the path out.'
    ) from error


def of_run(argument: str, text: str | pathlib.Path) -> pathlib.Path:
  """Returns the absolute path of a run that is to be read.

  Args:
    argument: Name of the argument, for the error.
    text: Path, as `local` takes it, or pretrained:NAME for a network that ships
      with the package.

  Raises:
    UserError: If `local` raises it, or the package has no such network.
  """
  prefix, name = str(text)[: len(PRETRAINED)], str(text)[len(PRETRAINED) :]
  if prefix != PRETRAINED:
    return local(argument, text)
  shipped = sorted(path.parent.name for path in _SHIPPED.glob('*/config.json'))
  if name not in shipped:
    raise errors.UserError(
      f'{argument}={text} does not ship with this package: choose from '
      f'{", ".join(PRETRAINED + name for name in shipped)}.'
    )
  return _SHIPPED / name


def is_shipped(path: pathlib.Path) -> bool:
  """Returns whether a path belongs to a network that ships with the package."""
  return path.is_relative_to(_SHIPPED)


def for_checkpoints(argument: str, text: str | pathlib.Path) -> pathlib.Path:
  """Returns the absolute path of a run that is to be written.

  Args:
    argument: Name of the argument, for the error.
    text: Path, as `local` takes it.

  Raises:
    UserError: If `local` raises it, orbax would lose checkpoints there, or it
      names a network that ships with the package.
  """
  if str(text).startswith(PRETRAINED):
    raise errors.UserError(
      f'{argument}={text} is only read: give a new workdir, and start from its '
      f'weights with --config.init_from={text}.'
    )
  path = local(argument, text)
  if found := _PATTERN.search(str(path)):
    raise errors.UserError(
      f'{argument}={path} has {found[0]} in its name, and checkpoints with it '
      'cannot be read again: give it another name.'
    )
  return path
