"""Matplotlib figures: how tools create and write them, and show images."""

import textwrap
from typing import Any

import numpy as np

from alexnet_jax import paths

# matplotlib.figure.Figure, which is slow to import.
Figure = Any
DPI = 160
GREY = '0.45'
WRONG = '#c1272d'
_SMALL = 64  # pixels


def create(width: float, height: float, **options: Any) -> Figure:
  """Returns an empty figure; width and height are in inches.

  Names in it are shown as they are, and not as formulas where they have a $.
  """
  import matplotlib
  from matplotlib import figure

  matplotlib.rcParams['text.parse_math'] = False
  return figure.Figure((width, height), **options)


def write(chart: Figure, path: str) -> None:
  """Writes a figure, makes its directory if needed, and prints the path."""
  file = paths.local('--output', path)
  file.parent.mkdir(parents=True, exist_ok=True)
  chart.savefig(file, dpi=DPI)
  print(path)


def show(axis: Any, image: np.ndarray) -> None:
  """Shows an image [H, W, 3] of uint8 on axes, in a thin frame."""
  # The pixels of small images stay visible.
  small = max(image.shape) <= _SMALL
  axis.imshow(image, interpolation='nearest' if small else 'antialiased')
  axis.set(xticks=[], yticks=[])
  axis.spines[:].set(linewidth=0.5, color=GREY)


def short(name: str, width: int, lines: int = 1) -> str:
  """Returns the first synonym, cut to `lines` lines of `width` characters."""
  first = name.split(',')[0] or name
  parts = textwrap.wrap(first, width, max_lines=lines, placeholder='…')
  # A file's name may have bytes that are no text.
  return '\n'.join(parts).encode(errors='replace').decode()
