"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

_RULERS = {'l': '---', 'r': '---:'}


def markdown(
  head: Sequence[str], rows: Iterable[Sequence[str]], align: str = ''
) -> str:
  """Returns a table, without a line break at its end.

  Args:
    head: Names of the columns.
    rows: Cells of each row.
    align: 'l' or 'r' for each column; by default the first column is a name
      on the left, and numbers on the right follow.
  """
  align = align or 'l' + 'r' * (len(head) - 1)
  rulers = [_RULERS[side] for _, side in zip(head, align, strict=True)]
  return '\n'.join(map(_line, [head, rulers, *rows]))


def _line(cells: Sequence[str]) -> str:
  escaped = (cell.replace('|', '\\|').replace('\n', ' ') for cell in cells)
  return f'| {" | ".join(escaped)} |'
