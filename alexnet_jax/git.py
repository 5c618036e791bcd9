"""Which version of this code is running."""

import pathlib
import subprocess


def commit() -> str | None:
  """This code's commit, '+' where files were changed; None outside git."""
  command = ['git', 'describe', '--always', '--abbrev=40', '--dirty=+']
  try:
    result = subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=False,
    )
  except OSError:  # no git at all
    return None
  return result.stdout.strip() or None
