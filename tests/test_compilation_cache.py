"""The second start compiles nothing; variables and a cache spoil no run."""

import os
import re
import subprocess
import sys
import types

import jax

from alexnet_jax import command_line
from tests import tiny
from tests.faults import trial

PROGRAMS = ('jit__initial_state', 'jit_train_step', 'jit_eval_step')


# Each would change numbers or types, or be an error.
VARIABLES = {
  'JAX_ENABLE_X64': '1',
  'JAX_DISABLE_JIT': '1',
  'JAX_DEFAULT_MATMUL_PRECISION': 'bfloat16',
  'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
  'JAX_NUMPY_RANK_PROMOTION': 'raise',
  'JAX_DEFAULT_PRNG_IMPL': 'rbg',
  'JAX_THREEFRY_PARTITIONABLE': '0',
  'JAX_RANDOM_SEED_OFFSET': '7',
  'JAX_ENABLE_CUSTOM_PRNG': '1',
  'JAX_LEGACY_PRNG_KEY': 'error',
  'JAX_DEBUG_NANS': '1',
  'JAX_DEBUG_INFS': '1',
  'JAX_DEBUG_KEY_REUSE': '1',
  'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  'JAX_CHECK_TRACER_LEAKS': '1',
  'JAX_TRANSFER_GUARD': 'disallow',
  'JAX_NO_TRACING': '1',
  'JAX_NO_EXECUTION': '1',
  'JAX_ERROR_CHECKING_BEHAVIOR_NAN': 'raise',
  'JAX_ERROR_CHECKING_BEHAVIOR_DIVIDE': 'raise',
  'JAX_ERROR_CHECKING_BEHAVIOR_OOB': 'raise',
  'EAGER_CONSTANT_FOLDING': '1',
}


def _start(directory, name, variables):
  """Trains three steps in a new process; returns stderr and the rows."""
  environment = os.environ | {
    'JAX_ENABLE_COMPILATION_CACHE': '1',
    'JAX_LOG_COMPILES': '1',
    # No program is too fast to be kept.
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'XDG_CACHE_HOME': str(directory / 'caches'),
    **variables,
  }
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  command = [sys.executable, 'main.py', f'--workdir={directory / name}']
  command += [f'--config=tests/tiny.py:{directory}', '--config.train_steps=3']
  done = subprocess.run(
    command,
    cwd=trial.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stderr, trial.rows(directory / name)


def _hits(stderr: str) -> list[str]:
  return [p for p in PROGRAMS if f"cache hit for '{p}'" in stderr]


def test_a_second_start_reads_what_the_first_compiled_whatever_jax_is_told(
  tmp_path,
):
  tiny.prepare_tiny(tmp_path)
  stderr, expected = _start(tmp_path, 'first', {})
  assert not _hits(stderr)
  directory = tmp_path / 'caches/alexnet_jax'
  (entry,) = directory.glob('jit_eval_step-*-cache')
  # A kill in the middle of writing leaves such a file.
  os.truncate(entry, entry.stat().st_size // 2)
  stderr, rows = _start(tmp_path, 'second', VARIABLES)
  assert _hits(stderr) == ['jit__initial_state', 'jit_train_step']
  assert "Error reading persistent compilation cache entry for 'jit_eval" in (
    stderr
  )
  for name in VARIABLES:
    assert re.search(f'{name}=.* is not used', stderr), name
  assert rows == expected


def test_a_directory_that_cannot_be_made_costs_a_warning(monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  updates, warnings = {}, []
  config = types.SimpleNamespace(
    jax_enable_compilation_cache=True,
    jax_compilation_cache_dir=None,
    update=updates.__setitem__,
  )
  monkeypatch.setattr(jax, 'config', config)

  def warn(text: str, *args) -> None:
    warnings.append(text % args)

  monkeypatch.setattr(command_line.logging, 'warning', warn)
  command_line.enable_compilation_cache()
  (warning,) = warnings
  assert 'compiled at every start' in warning
  assert 'jax_compilation_cache_dir' not in updates
