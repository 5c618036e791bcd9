"""What stands beside every measured number: machine, versions, command."""

import contextlib
import functools
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys

from alexnet_jax import git, hardware

_PACKAGES = (
  'jax',
  'flax',
  'numpy',
  'array_record',
  'tensorflow',
  'tensorflow-cpu',
)


def environment() -> dict[str, object]:
  """This machine, and how the program was called."""
  return {
    'gpu': gpu(),
    **hardware.describe(),
    'platform': platform.platform(),
    'python': platform.python_version(),
    'packages': versions(_PACKAGES),
    'git_commit': git.commit(),
    'command': command(),
  }


@functools.cache
def gpu() -> str:
  """The first NVIDIA GPU and its driver; '' without one."""
  if not shutil.which('nvidia-smi'):
    return ''
  query = '--query-gpu=name,driver_version'
  command = ['nvidia-smi', '-i', '0', query, '--format=csv,noheader']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return done.stdout.strip() if done.returncode == 0 else ''


def versions(packages: tuple[str, ...]) -> dict[str, str]:
  """Versions of those packages that are installed."""
  found = {}
  for name in packages:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def heading(title: str, environment: dict[str, object]) -> str:
  """The top of a results.md."""
  packages = ', '.join(f'{k} {v}' for k, v in environment['packages'].items())
  return f"""# {title}

    {environment['command']}

{_gpu_prefix(environment)}{environment['cores']} cores of {environment['cpu']},
{environment['memory_gib']} GiB; Python {environment['python']}, {packages};
commit {environment['git_commit']}.
"""


def _gpu_prefix(environment: dict[str, object]) -> str:
  gpu = environment.get('gpu')
  return f'{gpu}; ' if gpu else ''


def command() -> str:
  """The command line, with paths cut down to their names."""
  _, *arguments = sys.orig_argv
  cut = [
    re.sub(r'(?<=[=:,])[^=:,]*/(?=\S)', '.../', text) for text in arguments
  ]
  return ' '.join(['python', *cut])
