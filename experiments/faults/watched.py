"""main.py, which keeps writing how much memory it has in use (glibc).

    python -m experiments.faults.watched FILE FLAGS

What is in use is what the program has asked the allocator for and not given
back. What is resident has what the allocator keeps for later as well, which
with a hundred threads comes and goes by tens of MiB.
"""

import ctypes
import os
import pathlib
import runpy
import sys
import threading
import time

_EVERY = 1.0  # seconds
_FIELDS = (
  'arena',
  'ordblks',
  'smblks',
  'hblks',
  'hblkhd',  # bytes in use, of blocks with a mapping of their own
  'usmblks',
  'fsmblks',
  'uordblks',  # bytes in use, of all others
  'fordblks',
  'keepcost',
)


class _Mallinfo(ctypes.Structure):
  """`struct mallinfo2` of malloc.h."""

  _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def _watch(path: pathlib.Path) -> None:
  mallinfo = ctypes.CDLL('libc.so.6').mallinfo2
  mallinfo.restype = _Mallinfo
  new = path.with_suffix('.new')
  while True:
    info = mallinfo()
    new.write_text(str(info.uordblks + info.hblkhd))
    os.replace(new, path)
    time.sleep(_EVERY)


if __name__ == '__main__':
  path = pathlib.Path(sys.argv.pop(1))
  threading.Thread(target=_watch, args=(path,), daemon=True).start()
  runpy.run_path('main.py', run_name='__main__')
