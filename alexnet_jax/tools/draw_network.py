"""Draws a config's network, as the paper's Figure 2 does AlexNet's.

    python -m alexnet_jax.tools.draw_network --config=configs/alexnet.py \\
        --output=network.svg

Each box is what a layer computes in one tower: as high and deep as its maps, as
wide as it has many (both by their square roots, or small ones would not show).
Lines are what a layer reads: they cross where it reads all towers. Below are
its parameters in all towers, its kernels and the operations after it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from alexnet_jax import command_line, validate
from alexnet_jax.models import alexnet
from alexnet_jax.tools import describe, figures
from alexnet_jax.tools import flags as tool_flags

_STEP, _TOWER = 1.6, 2.4  # distances of layers and of towers, inches
_BELOW, _ABOVE = 1.3, 0.4  # room for words, inches
_SIDE = 1.4  # height of a box of 224 pixels, inches
_SLANT = 0.35  # how far the depth of a box goes right, and up
_FILLS = ('#dbe7f3', '#f6e3d3')  # towers


class _Box(NamedTuple):
  """A box's centre and sizes, in inches."""

  x: float
  y: float
  width: float
  height: float
  depth: float

  @property
  def left(self) -> tuple[float, float]:
    """Place at which lines end."""
    return self.x - self.width / 2, self.y

  @property
  def right(self) -> tuple[float, float]:
    """Place at which lines start."""
    return self.x + self.width / 2 + self.depth / 2, self.y


def _box(shape: Sequence[int], x: float, y: float) -> _Box:
  """Returns the box of maps [H, W, C], or the thin one of units [C]."""
  *sides, features = shape
  if not sides:
    height = 0.25 + 0.018 * math.sqrt(features)
    return _Box(x, y, 0.12, height, 0.1)
  side = _SIDE * math.sqrt(sides[0] / 224)
  return _Box(x, y, 0.03 * math.sqrt(features), side, _SLANT * side)


def draw(config: ml_collections.ConfigDict) -> figures.Figure:
  """Returns the drawing of a config's network."""
  shapes = describe.layer_shapes(config)
  towers = config.model.towers
  rows = {}
  if config.model.name == 'alexnet':
    rows = alexnet.layer_table(config.model)
  width = _STEP * (len(shapes) + 1)
  height = _TOWER * towers + _BELOW + _ABOVE
  chart = figures.create(width, height)
  axis = chart.add_axes((0, 0, 1, 1), aspect='equal')
  axis.set(
    xlim=(-_STEP / 2, width - _STEP / 2), ylim=(-_BELOW, height - _BELOW)
  )
  axis.axis('off')
  middle = [_TOWER * towers / 2]
  centres = [_TOWER * (towers - tower - 0.5) for tower in range(towers)]
  side = config.data.crop_size
  image = (side, side, config.data.channels)
  boxes = _layer(axis, image, 0, middle, ['white'])
  counts = describe.parameter_counts(config)
  total = f'{sum(counts.values()):,}'
  _write_below(axis, 0, ['image', '', 'all layers:', f'{total} parameters'])
  for place, (name, (shape, *_)) in enumerate(shapes.items(), 1):
    row = rows.get(name, {})
    meets = towers > 1 and row.get('kind') == 'head'
    before, fills = boxes, ['white'] if meets else _FILLS
    boxes = _layer(axis, shape, place, middle if meets else centres, fills)
    reads_all = row.get('gather') or len(before) != len(boxes)
    _connect(axis, before, boxes, reads_all)
    lines = [name, f'{counts.get(name, 0):,}', *_operations(row)]
    _write_below(axis, place, lines)
  return chart


def _layer(
  axis: Any,
  shape: Sequence[int],
  place: int,
  centres: Sequence[float],
  fills: Sequence[str],
) -> list[_Box]:
  """Draws a layer's box at each centre, with its sizes; returns the boxes."""
  boxes = [_box(shape, _STEP * place, y) for y in centres]
  for number, box in enumerate(boxes):
    _draw_box(axis, box, fills[number % len(fills)])
    top = box.y + box.height / 2 + box.depth + 0.06
    text = ' × '.join(map(str, shape))
    words = axis.text(box.x, top, text, ha='center', va='bottom', fontsize=9)
    words.set_bbox({'color': 'white', 'pad': 0.5})
  return boxes


def _draw_box(axis: Any, box: _Box, fill: str) -> None:
  """Draws the front, the top and the right side of a box."""
  left, right = box.x - box.width / 2, box.x + box.width / 2
  low, high = box.y - box.height / 2, box.y + box.height / 2
  to_right, up = box.depth / 2, box.depth
  front = [(left, low), (right, low), (right, high), (left, high)]
  top = [(left, high), (right, high)]
  top += [(x + to_right, y + up) for x, y in reversed(top)]
  side = [(right, low), (right, high)]
  side += [(x + to_right, y + up) for x, y in reversed(side)]
  for corners in (front, top, side):
    x, y = zip(*corners, strict=True)
    axis.fill(x, y, facecolor=fill, edgecolor='0.25', linewidth=0.8, zorder=2)


def _connect(
  axis: Any, before: list[_Box], after: list[_Box], reads_all: bool
) -> None:
  """Draws a line from each box to each one that reads it."""
  for i, start in enumerate(before):
    for j, end in enumerate(after):
      if reads_all or i == j:
        axis.annotate(
          '',
          end.left,
          start.right,
          arrowprops={'arrowstyle': '->', 'color': figures.GREY, 'lw': 0.9},
          zorder=1,
        )


def _operations(row: ml_collections.ConfigDict) -> list[str]:
  """Returns what a row of AlexNet's table says, in words."""
  if not row:
    return []
  kernels = []
  if 'kernel' in row:
    stride = f', stride {row.stride}' if row.stride > 1 else ''
    kernels = [f'{row.kernel} × {row.kernel}{stride}']
  return [*kernels, *(operation.replace('_', ' ') for operation in row.after)]


def _write_below(axis: Any, place: int, lines: Sequence[str]) -> None:
  """Writes lines under a layer; the first, its name, in bold."""
  name, *rest = lines
  place = _STEP * place
  options = {'ha': 'center', 'va': 'top'}
  axis.text(place, 0.1, name, fontsize=10, weight='bold', **options)
  text = '\n'.join(rest)
  axis.text(place, -0.1, text, fontsize=8, linespacing=1.3, **options)


def define_flags() -> None:
  """Defines the flags of this tool."""
  describe.define_flags()
  tool_flags.define_picture('network.svg')


def main(_) -> None:
  """Writes the picture."""
  validate.check_config(flags.FLAGS.config)
  figures.write(draw(flags.FLAGS.config), flags.FLAGS.output)


if __name__ == '__main__':
  command_line.run(main, define_flags)
