"""What the entry points share: a mistake on the command line is a sentence."""

import contextlib
import errno
import signal
import sys
from collections.abc import Iterator

import ml_collections
from absl import flags

from alexnet_jax import errors

_OF_DISKS = (*errors.NO_ROOM, errno.ENOLCK, errno.EIO)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses absl flags, a config file among them; for `app.run`.

  Exits with one sentence where that fails, Did-you-mean included.
  """
  with one_sentence():
    try:
      arguments = flags.FLAGS(argv)
      _report_unloaded(flags.FLAGS['config'].value)
    except OSError as error:
      raise errors.UserError(
        f'--config names no readable file ({_one_line(error)}).'
      ) from error
    except (
      flags.Error,
      AttributeError,
      KeyError,
      ValueError,
      TypeError,
    ) as error:
      raise errors.UserError(f'{_one_line(error)} (see --help).') from error
  return arguments


def _report_unloaded(config: object) -> None:
  # For a file that does not load, absl holds an object that raises when used.
  if config is not None and not isinstance(config, ml_collections.ConfigDict):
    config.lock()


def _one_line(error: Exception) -> str:
  # Did-you-mean messages come quoted, with line breaks inside.
  text = str(error).replace('\\n', ' ').replace('\n', ' ')
  return text.strip('\'" ').replace("\\'", "'")


def check_no_arguments(argv: list[str]) -> None:
  """For programs that take flags only.

  Raises:
    UserError: where there is an argument.
  """
  if len(argv) > 1:
    raise errors.UserError(f'{argv[1]!r} is no flag; write it as --name=value.')


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
  """Turns a user's mistake into one line on stderr and exit code 1.

  A signal's exit code is 128 + its number.
  """
  try:
    yield
  except errors.Interrupted as interrupted:
    print(interrupted, file=sys.stderr)
    sys.exit(128 + interrupted.number)
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)
  except errors.UserError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    if error.filename is None and error.errno not in _OF_DISKS:
      raise
    # A path that cannot be read or written, which the message names, or a disk.
    if error.errno in errors.NO_ROOM:
      sys.exit(f'error: {error}: make room, and the same command goes on.')
    sys.exit(f'error: {error}.')
