"""What figures share: how they are written, and how images stand in them."""

import pathlib
import textwrap

import numpy as np
from matplotlib import axes, figure

from alexnet_jax import errors

DPI = 160
GREY = '0.45'
WRONG = '#c1272d'
_SUFFIXES = ('.png', '.jpg', '.pdf', '.svg')


def check_path(path: pathlib.Path) -> None:
  """Raises UserError where no picture can have this name."""
  if path.suffix not in _SUFFIXES:
    raise errors.UserError(
      f'--output={path} is no picture; end it in {", ".join(_SUFFIXES)}.'
    )


def write(chart: figure.Figure, path: pathlib.Path) -> None:
  """Writes a figure, and the directories on the way."""
  path.parent.mkdir(parents=True, exist_ok=True)
  chart.savefig(path, dpi=DPI)


def show(axis: axes.Axes, image: np.ndarray) -> None:
  """An image [H, W, 3] of uint8 in a thin frame, without ticks."""
  small = max(image.shape) <= 64  # whose pixels are to be seen as they are
  axis.imshow(image, interpolation='nearest' if small else 'antialiased')
  axis.set(xticks=[], yticks=[])
  for spine in axis.spines.values():
    spine.set(linewidth=0.5, color=GREY)


def short(name: str, width: int, lines: int = 1) -> str:
  """A name in up to `lines` lines of `width` characters, and no formula."""
  first = name.split(',')[0] or name  # of synonyms
  parts = textwrap.wrap(first, width, max_lines=lines, placeholder='…')
  return '\n'.join(parts).replace('$', r'\$')
