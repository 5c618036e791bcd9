"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

_RULERS = {'l': '---', 'r': '---:'}


def markdown(
  head: Sequence[str], rows: Iterable[Sequence[str]], align: str = ''
) -> str:
  """A table, without a line break at its end.

  Args:
    head: names of columns.
    rows: of cells.
    align: 'l' or 'r' for each column; by default numbers follow one name.
  """
  align = align or 'l' + 'r' * (len(head) - 1)
  return '\n'.join(map(_line, [head, [_RULERS[a] for a in align], *rows]))


def _line(cells: Sequence[str]) -> str:
  escaped = (cell.replace('|', '\\|') for cell in cells)
  return f'| {" | ".join(escaped)} |'
