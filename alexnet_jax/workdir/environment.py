"""Versions, machine, devices, variables and commit of a process."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess

import jax

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'array_record',
  'numpy',
)

# Beginnings of the names of variables that a library's numbers may depend on.
_VARIABLES = (
  'CUDA_',
  'JAX_',
  'NVIDIA_TF32_OVERRIDE',
  'OMP_',
  'TF_ENABLE_',
  'TF_XLA_',
  'XLA_',
)


def describe() -> dict[str, object]:
  """Returns what environment.json says of this process."""
  return {
    'python': platform.python_version(),
    'platform': platform.platform(),
    **hardware(),
    'packages': packages(),
    'devices': [f'{d.platform} {d.device_kind}' for d in jax.devices()],
    'variables': {
      name: value
      for name, value in sorted(os.environ.items())
      if name.startswith(_VARIABLES)
    },
    'git_commit': git_commit(),
  }


def packages() -> dict[str, str]:
  """Returns the versions of the libraries that results may depend on."""
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return versions | {'tensorflow': _tensorflow_version()}


def code_digest() -> str:
  """Returns a digest of the package's own files, with or without git."""
  root = pathlib.Path(__file__).parent.parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:12]


def hardware() -> dict[str, object]:
  """Returns the machine's 'cpu', number of 'cores' and 'memory_gib'."""
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  info = pathlib.Path('/proc/cpuinfo')
  found = re.search(
    r'model name\s*: (.*)', info.read_text() if info.exists() else ''
  )
  return {
    'cpu': found[1] if found else platform.processor(),
    'cores': os.cpu_count(),
    'memory_gib': round(pages / 2**30, 1),
  }


def git_commit() -> str | None:
  """Returns this code's commit, with '+' if files differ; None without git."""
  command = ['git', 'describe', '--always', '--abbrev=40', '--dirty=+']
  try:
    result = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=False,
    )
  except OSError:  # git is not installed
    return None
  return result.stdout.strip() or None


def _tensorflow_version() -> str:
  for name in ('tensorflow-cpu', 'tensorflow'):
    try:
      return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return 'unknown'
