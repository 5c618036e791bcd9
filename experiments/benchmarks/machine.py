"""Machine, versions and command line, to be written beside measured numbers."""

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys

_CODE = (
  'import json; from alexnet_jax.workdir import environment; '
  'print(json.dumps(environment.describe()))'
)


@functools.cache
def describe() -> dict[str, object]:
  """Returns what environment.json says of a run here, and the command.

  Another process finds out: JAX would take the GPU's memory in this one.
  """
  done = subprocess.run(
    [sys.executable, '-c', _CODE],
    stdout=subprocess.PIPE,
    check=True,
    env=os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'},
  )
  return json.loads(done.stdout.splitlines()[-1]) | {'command': command()}


def has_gpu() -> bool:
  """Returns whether JAX finds a GPU here."""
  return any(name.startswith('gpu') for name in describe()['devices'])


def versions(packages: tuple[str, ...]) -> dict[str, str]:
  """Returns the versions of those packages that are installed."""
  found = {}
  for name in packages:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def heading(title: str, about: dict[str, object]) -> str:
  """Returns the first lines of a results.md.

  Args:
    title: Headline.
    about: Result of `describe`.
  """
  packages = ', '.join(f'{k} {v}' for k, v in about['packages'].items())
  return f"""# {title}

    {about['command']}

{about['devices'][0]}; {about['cores']} cores of {about['cpu']},
{about['memory_gib']} GiB; Python {about['python']}, {packages};
commit {about['git_commit']}.
"""


def command() -> str:
  """Returns the command line of this process, without directories."""
  _, *arguments = sys.orig_argv
  cut = [
    re.sub(r'(?<=[=:,])[^=:,]*/(?=\S)', '.../', text) for text in arguments
  ]
  return ' '.join(['python', *cut])
