"""What every benchmark's Markdown is made of."""

# Cores of other programs that disturb nothing.
_QUIET = 0.1


def line(cells: list[str]) -> str:
  """A row of a table."""
  return f'| {" | ".join(cells)} |'


def disturbance(entries: list[dict]) -> str:
  """What a reader must know before trusting the numbers."""
  others = [x for entry in entries for x in entry.get('others', [])]
  known = [x for x in others if x is not None]
  if not known:
    return 'What other programs used meanwhile is not known.'
  disturbed = sum(x > _QUIET for x in known)
  return (
    f'In {disturbed} of {len(known)} measurements other programs used more '
    f'than {_QUIET} cores (at most {max(known):.2f}).'
  )
