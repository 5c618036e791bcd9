"""Compiled programs, kept for the next start of the same config.

In `~/.cache/alexnet_jax`, or `$XDG_CACHE_HOME/alexnet_jax`; jax's own switches
go first: JAX_COMPILATION_CACHE_DIR is another directory,
JAX_ENABLE_COMPILATION_CACHE=0 turns it off. An entry is found by its program,
options, jaxlib and devices; a damaged one is compiled again, with a warning at
each start. The directory may be removed at any time.
"""

import os
import pathlib

import jax
from absl import logging

# Below jax's 1 s, which leaves out initialisation and evaluation of a small
# net, and above what programs of a single operation take.
_MIN_SECONDS = 0.1


def enable() -> None:
  """Switches the cache on for this process, before it compiles anything.

  Where the default directory cannot be made, it warns, and goes without.
  """
  config = jax.config
  if not config.jax_enable_compilation_cache:
    return
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    config.update('jax_persistent_cache_min_compile_time_secs', _MIN_SECONDS)
  if config.jax_compilation_cache_dir:
    return
  try:
    directory = _default_directory()
    directory.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError) as error:  # RuntimeError: no home
    logging.warning('Programs are compiled at every start: %s.', error)
    return
  config.update('jax_compilation_cache_dir', str(directory))


def _default_directory() -> pathlib.Path:
  caches = os.environ.get('XDG_CACHE_HOME')
  root = pathlib.Path(caches) if caches else pathlib.Path.home() / '.cache'
  return root / 'alexnet_jax'
