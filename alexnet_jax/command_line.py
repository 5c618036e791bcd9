"""Frame of every program: flags, quiet libraries, one-sentence errors."""

import atexit
import contextlib
import difflib
import errno
import os
import pathlib
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from alexnet_jax import errors

# Else TensorFlow imports Keras and Matplotlib: a second that nothing needs.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')

Main = Callable[[list[str]], None]
# JAX's options that numbers and types depend on, or that not every program of
# ours can run with, and their defaults. JAX_ENABLE_X64=1 sets the first, and so
# on.
_JAX_OPTIONS = {
  'jax_enable_x64': False,
  'jax_disable_jit': False,
  'jax_default_matmul_precision': None,
  'jax_numpy_dtype_promotion': 'standard',
  'jax_numpy_rank_promotion': 'allow',
  'jax_default_prng_impl': 'threefry2x32',
  'jax_threefry_partitionable': True,
  'jax_random_seed_offset': 0,
  'jax_enable_custom_prng': False,
  'jax_legacy_prng_key': 'allow',
  'jax_debug_nans': False,
  'jax_debug_infs': False,
  'jax_debug_key_reuse': False,
  'jax_disable_most_optimizations': False,
  'jax_check_tracer_leaks': False,
  'jax_transfer_guard': None,
  'jax_no_tracing': False,
  'jax_no_execution': False,
  'jax_error_checking_behavior_nan': 'ignore',
  'jax_error_checking_behavior_divide': 'ignore',
  'jax_error_checking_behavior_oob': 'ignore',
  'eager_constant_folding': False,
}
_DISK_ERRORS = (*errors.NO_ROOM, errno.ENOLCK, errno.EIO)
# Bytes of address space without which libraries wait for threads for ever.
_ADDRESS_SPACE = 3 * 2**30
_ADDRESS_SPACE_OF_CORE = 2**29
# jax's own limit of 1 s leaves out the initialisation and evaluation of small
# networks; programs of a single operation take less than this.
_SECONDS_WORTH_CACHING = 0.1


def run(
  main: Main,
  define_flags: Callable[[], None] = lambda: None,
  *,
  takes_arguments: bool = False,
) -> None:
  """Runs a program with `absl.app.run`.

  Libraries are quiet, compiled programs are kept for the next start, and a
  user's mistake ends in one sentence.

  Args:
    main: Function of the arguments that are no flags.
    define_flags: Function that defines the program's flags.
    takes_arguments: Whether there may be arguments that are no flags.
  """
  _open_closed_streams()
  # A name of a file may have what the terminal cannot show.
  sys.stdout.reconfigure(errors='backslashreplace')
  sys.unraisablehook = _print_unraisable
  known = set(flags.FLAGS)
  define_flags()
  for name in set(flags.FLAGS) - known:  # --help shows a program's key flags
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  guarded = guard(main, takes_arguments=takes_arguments)
  try:
    with _quiet_without_reader(), one_sentence():
      try:
        app.run(guarded, flags_parser=parse_flags)
      finally:
        sys.stdout.flush()  # its errors are reported like those of `main`
  except SystemExit as end:
    if not end.code:
      raise
    _end_without_readers(end.code)


def _end_without_readers(code: int | str) -> NoReturn:
  """Ends the process as `sys.exit` does, but frees nothing.

  TensorFlow would free a reader of data that was stopped half-way with Python's
  lock held, and wait for its threads, which may wait for that lock for ever.
  """
  if isinstance(code, str):
    print(code, file=sys.stderr)
    code = 1
  atexit._run_exitfuncs()
  sys.stderr.flush()
  os._exit(code)


def _print_unraisable(unraisable: Any) -> None:
  """Prints an error that nobody can catch, unless another one explains it.

  tensorstore has hundreds of these when it cannot read or write.
  """
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def _open_closed_streams() -> None:
  """Gives streams that are closed /dev/null.

  Otherwise the next file that is opened gets a stream's number, and libraries
  write their messages into it.
  """
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      file = open(os.devnull, mode)  # noqa: SIM115
      setattr(sys, name, file)


@contextlib.contextmanager
def _quiet_without_reader() -> Iterator[None]:
  """Ends the program without a word if the reader of its output has gone.

  The exit code is that of a program that SIGPIPE ends, as in `main.py | head`.
  """
  try:
    yield
  except BrokenPipeError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
      os.dup2(nowhere, stream.fileno())  # else Python would report it again
    sys.exit(128 + signal.SIGPIPE)


def guard(main: Main, *, takes_arguments: bool = False) -> Main:
  """Returns `main` as absl calls it, with mistakes in one sentence.

  Args:
    main: Function of the arguments that are no flags.
    takes_arguments: Whether there may be arguments that are no flags.
  """

  def guarded(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    # orbax raises what it logs with a traceback.
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    with one_sentence():
      if not takes_arguments:
        _check_no_arguments(argv)
      main(argv[1:])

  return guarded


def set_up_jax() -> None:
  """Makes JAX compute as in every other run, and keep what it compiles.

  Variables such as JAX_ENABLE_X64 have no effect, and a warning says so. Call
  this before anything is compiled.

  Raises:
    UserError: If JAX cannot use the devices that it is to use, or libraries
      would wait for threads that they cannot start.
  """
  import jax  # slow: not at a program's start

  _check_address_space()
  for name, value in _JAX_OPTIONS.items():
    given = jax.config.values.get(name, value)
    if given != value:
      variable = f'{name.upper()}={given}'
      logging.warning('%s is not used; runs would differ by it.', variable)
      jax.config.update(name, value)
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    raise errors.UserError(
      f'JAX_PLATFORMS={jax.config.jax_platforms or ""} names devices that JAX '
      f'cannot use ({errors.first_line(error)}): give cpu, or no value.'
    ) from error
  enable_compilation_cache()


def _check_address_space() -> None:
  """Raises UserError if `ulimit -v` is so low that libraries hang."""
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  # Each core gets a few threads, and each thread a stack and a heap.
  needed = _ADDRESS_SPACE + _ADDRESS_SPACE_OF_CORE * (os.cpu_count() or 1)
  if limit != resource.RLIM_INFINITY and limit < needed:
    raise errors.UserError(
      f'ulimit -v {limit // 2**10} leaves too little address space for the '
      f'threads of {os.cpu_count()} cores: give at least {needed // 2**10}, or '
      'unlimited.'
    )


def enable_compilation_cache() -> None:
  """Keeps compiled programs for the next start of the same config.

  They lie in `~/.cache/alexnet_jax` or `$XDG_CACHE_HOME/alexnet_jax`, unless
  JAX_COMPILATION_CACHE_DIR names another directory or
  JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off. The directory may be
  removed at any time. Call this before anything is compiled.
  """
  import jax  # slow: not at a program's start

  config = jax.config
  if not config.jax_enable_compilation_cache:
    return
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    name = 'jax_persistent_cache_min_compile_time_secs'
    config.update(name, _SECONDS_WORTH_CACHING)
  if config.jax_compilation_cache_dir:
    return
  try:
    caches = os.environ.get('XDG_CACHE_HOME')
    root = pathlib.Path(caches) if caches else pathlib.Path.home() / '.cache'
    directory = root / 'alexnet_jax'
    directory.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
    logging.warning('Programs are compiled at every start: %s.', error)
    return
  config.update('jax_compilation_cache_dir', str(directory))


def parse_flags(argv: list[str]) -> list[str]:
  """Parses absl flags, a config file among them, and returns the arguments.

  A mistake ends the program with one sentence; 'Did you mean' is kept.
  """
  with one_sentence():
    try:
      arguments = flags.FLAGS(argv)
      _check_config_file()
    except OSError as error:
      if error.errno is not None:  # of printing --help
        raise
      raise errors.UserError(_unreadable_config(error)) from error
    except (
      flags.Error,
      AttributeError,
      KeyError,
      ValueError,
      TypeError,
    ) as error:
      sentence = f'{one_line(error)} (see --help).'
      unknown = "Unknown command line flag 'config." in sentence
      if unknown and 'config' in flags.FLAGS:
        sentence = 'fields can be given after --config=configs/NAME.py alone.'
      raise errors.UserError(_unknown_field(argv, error) or sentence) from error
  return arguments


def _check_config_file() -> None:
  # A file that cannot be loaded leaves an object that raises when it is used.
  config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
  if config is not None and not hasattr(type(config), 'lock'):
    config.lock()


def one_line(error: Exception) -> str:
  """Returns the message of an error without line breaks and quotes."""
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  # A KeyError's text has quotes around the message.
  text = error.args[0] if isinstance(error, KeyError) else error
  return ' '.join(str(text).split())


def _unreadable_config(error: OSError) -> str:
  """Returns a sentence that names the config and the file most like it."""
  missing = re.findall("No such file or directory: '(.*?)'", one_line(error))
  if not missing:
    return f'--config names no readable file ({one_line(error)}).'
  path = pathlib.Path(missing[-1])
  names = map(str, path.parent.glob('*.py'))
  like = difflib.get_close_matches(str(path), names, 1)
  remedy = f'did you mean {like[0]}?' if like else 'give a file of configs/.'
  return f'--config={path} does not exist; {remedy}'


def _unknown_field(argv: Sequence[str], error: Exception) -> str | None:
  """Returns a sentence that names a field that the config does not have.

  The message of ml_collections has only the last part of the name. Returns None
  if the error is about something else.
  """
  field, *hint = re.split(' (?=Did you mean)', one_line(error))
  field = field.strip("'")
  for argument in argv:
    name = argument.partition('=')[0]
    if 'config.' in name and field in re.split(r'[.\[\]]', name)[1:]:
      reason = f'{name}: there is no field {field!r}'
      known = 'all fields are in alexnet_jax/config.py'
      return f'{reason} ({hint[0]})' if hint else f'{reason}; {known}.'
  return None


def _check_no_arguments(argv: list[str]) -> None:
  if len(argv) > 1:
    raise errors.UserError(f'{argv[1]!r} is no flag; write it as --name=value.')


def whole_numbers(name: str, texts: Sequence[str]) -> list[int]:
  """Returns the numbers of a flag that is a list.

  Args:
    name: Name of the flag.
    texts: Value of the flag.

  Raises:
    UserError: If one is no whole number.
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

  After a signal, the exit code is 128 + its number.
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
    if error.filename is None and error.errno not in _DISK_ERRORS:
      raise
    # A path that cannot be read or written, which the message names, or a disk.
    if error.errno in errors.NO_ROOM:
      sys.exit(f'error: {error}: make room, and the same command goes on.')
    sys.exit(f'error: {error}.')
