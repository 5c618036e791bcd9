"""What the entry points share: a mistake on the command line is a sentence."""

import contextlib
import errno
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import ml_collections
import tensorflow as tf
from absl import app, flags, logging

from alexnet_jax import errors

_OF_DISKS = (*errors.NO_ROOM, errno.ENOLCK, errno.EIO)


Main = Callable[[list[str]], None]


def run(main: Main, *, takes_arguments: bool = False) -> None:
  """Runs a program: `absl.app.run`, and what all of ours have in common.

  Libraries are quiet, TensorFlow leaves GPUs to JAX, and a mistake is one
  sentence.

  Args:
    main: of the arguments that are no flags.
    takes_arguments: whether there may be any.
  """
  guarded = guard(main, takes_arguments=takes_arguments)
  app.run(guarded, flags_parser=parse_flags)


def guard(main: Main, *, takes_arguments: bool = False) -> Main:
  """The same for absl: a function of the program's name and arguments."""

  def guarded(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    tf.config.set_visible_devices([], 'GPU')
    with one_sentence():
      if not takes_arguments:
        _check_no_arguments(argv)
      main(argv[1:])

  return guarded


def parse_flags(argv: list[str]) -> list[str]:
  """Parses absl flags, a config file among them.

  Exits with one sentence where that fails, Did-you-mean included.
  """
  with one_sentence():
    try:
      arguments = flags.FLAGS(argv)
      _report_unloaded()
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


def _report_unloaded() -> None:
  # For a file that does not load, absl holds an object that raises when used.
  config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
  if config is not None and not isinstance(config, ml_collections.ConfigDict):
    config.lock()


def _one_line(error: Exception) -> str:
  # Did-you-mean messages come quoted, with line breaks inside.
  text = str(error).replace('\\n', ' ').replace('\n', ' ')
  return text.strip('\'" ').replace("\\'", "'")


def _check_no_arguments(argv: list[str]) -> None:
  if len(argv) > 1:
    raise errors.UserError(f'{argv[1]!r} is no flag; write it as --name=value.')


def whole_numbers(name: str, texts: Sequence[str]) -> list[int]:
  """Those of a flag that is a list.

  Args:
    name: of the flag.
    texts: its value.

  Raises:
    UserError: where one is no whole number.
  """
  for text in texts:
    if not text.isdecimal():
      raise errors.UserError(
        f'--{name}={text} is no whole number; give some, as 0,1,2.'
      )
  return [int(text) for text in texts]


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
