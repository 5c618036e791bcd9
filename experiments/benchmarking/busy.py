"""How much of the machine other programs use while a worker measures.

A disturbed round looks like any other, only slower, so each one says how far it
was alone. Reads Linux's /proc; elsewhere nothing is known. A slower clock or a
host that does not report what it takes stays unseen.
"""

import contextlib
import os
import pathlib
import time

_PROC = pathlib.Path('/proc')
# Cores of other programs that disturb nothing.
_QUIET = 0.1


class Others:
  """Cores that processes outside of a group use, from its creation on."""

  def __init__(self, group: int):
    self._group = group
    self._start = time.perf_counter()
    self._before = self._seconds()

  def cores(self) -> float | None:
    """Their mean so far, steal that the host reports included."""
    if self._before is None:
      return None
    elapsed = time.perf_counter() - self._start
    return max(0.0, (self._seconds() - self._before) / elapsed)

  def _seconds(self) -> float | None:
    """Of all cores' work since the machine started, less the group's."""
    if not (_PROC / 'stat').exists():
      return None
    fields = (_PROC / 'stat').read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, *interrupts_and_steal = map(int, fields)
    ticks = user + nice + system + sum(interrupts_and_steal)
    return (ticks - _group_ticks(self._group)) / os.sysconf('SC_CLK_TCK')


def _group_ticks(group: int) -> int:
  """CPU time of a process group, of its children that have ended included."""
  ticks = 0
  for path in _PROC.glob('[0-9]*/stat'):
    # Processes come and go meanwhile.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      # The name, in brackets, may hold spaces.
      fields = path.read_text().rpartition(')')[2].split()
      if int(fields[2]) == group:
        ticks += sum(map(int, fields[11:15]))
  return ticks


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
