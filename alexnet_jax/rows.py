"""JSON lines: of metrics.jsonl, and of results."""

import json
import pathlib
from collections.abc import Iterable, Mapping

from alexnet_jax import errors

Row = dict[str, object]


def read(workdir: pathlib.Path) -> list[Row]:
  """The rows of a run, so far.

  Raises:
    UserError: where there are none, or a line is no row.
  """
  found = parse(workdir / 'metrics.jsonl')
  if not found:
    raise errors.UserError(
      f'workdir={workdir} has no metrics yet; give the workdir of a run that '
      'has logged something.'
    )
  return found


def parse(path: pathlib.Path) -> list[Row]:
  """The same; no rows where there is no file."""
  # A damaged byte is named with its line.
  text = path.read_text(errors='replace') if path.exists() else ''
  # A run that trains, or was cut off, may leave a last line without its end.
  lines = [x for x in text.splitlines(keepends=True) if x.endswith('\n')]
  return [_parse_line(path, line) for line in lines]


def dump(rows: Iterable[Mapping[str, object]]) -> str:
  """The text of a file of rows."""
  return ''.join(json.dumps(row) + '\n' for row in rows)


def _parse_line(path: pathlib.Path, line: str) -> Row:
  try:
    row = json.loads(line)
    row['step']
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f'{path} has a line that is no row, {line[:40]!r}; mend it, or start a '
      'new workdir.'
    ) from error
  return row
