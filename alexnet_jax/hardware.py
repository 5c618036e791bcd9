"""The machine that a run is on."""

import os
import pathlib
import platform
import re


def describe() -> dict[str, object]:
  """Its 'cpu', number of 'cores' and 'memory_gib'."""
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return {
    'cpu': _cpu(),
    'cores': os.cpu_count(),
    'memory_gib': round(pages / 2**30, 1),
  }


def _cpu() -> str:
  info = pathlib.Path('/proc/cpuinfo')
  text = info.read_text() if info.exists() else ''
  found = re.search(r'model name\s*: (.*)', text)
  return found[1] if found else platform.processor()
