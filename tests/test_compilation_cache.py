"""The second start compiles nothing; a spoilt cache spoils no run."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from alexnet_jax import compilation_cache
from tests import tiny

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = ('jit__initial_state', 'jit_train_step', 'jit_eval_step')


@pytest.fixture
def start(tmp_path):
  """Trains three steps anew; gives stderr and the rows without times."""
  tiny.prepare_tiny(tmp_path)

  def train(name: str, **variables: str) -> tuple[str, list[dict]]:
    command = [sys.executable, str(ROOT / 'main.py')]
    command += [f'--config={ROOT}/tests/tiny.py:{tmp_path}']
    command += [f'--workdir={tmp_path / name}', '--config.train_steps=3']
    environment = os.environ | {
      'JAX_ENABLE_COMPILATION_CACHE': '1',
      'JAX_LOG_COMPILES': '1',
      # So that no program is too fast to be kept.
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    done = subprocess.run(
      command,
      cwd=ROOT,
      env=environment | variables,
      capture_output=True,
      text=True,
      check=True,
    )
    lines = (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
    return done.stderr, [json.loads(x) | {'timing': None} for x in lines]

  return train


def _hits(stderr: str) -> list[str]:
  return [p for p in PROGRAMS if f"cache hit for '{p}'" in stderr]


def test_a_second_start_reads_what_the_first_compiled(start, tmp_path):
  caches = {'XDG_CACHE_HOME': str(tmp_path / 'caches')}
  stderr, expected = start('first', **caches)
  assert not _hits(stderr)
  directory = tmp_path / 'caches/alexnet_jax'
  (entry,) = directory.glob('jit_eval_step-*-cache')
  # As a kill in the middle of writing leaves it.
  os.truncate(entry, entry.stat().st_size // 2)
  stderr, rows = start('second', **caches)
  assert _hits(stderr) == ['jit__initial_state', 'jit_train_step']
  assert "Error reading persistent compilation cache entry for 'jit_eval" in (
    stderr
  )
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
  monkeypatch.setattr(compilation_cache.jax, 'config', config)

  def warn(text: str, *args) -> None:
    warnings.append(text % args)

  monkeypatch.setattr(compilation_cache.logging, 'warning', warn)
  compilation_cache.enable()
  (warning,) = warnings
  assert 'compiled at every start' in warning
  assert 'jax_compilation_cache_dir' not in updates
