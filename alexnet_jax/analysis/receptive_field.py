"""Which pixels a place of a layer's maps sees.

From the table of layers alone. Each window on the way (of filters, pools and
response norms within a map) widens the interval that a place sees, and what
hangs over an edge is cut off at every layer: a place at the border may see less
than the same arithmetic without edges would say.
"""

from typing import NamedTuple

import ml_collections

from alexnet_jax.models import alexnet, layers


class Window(NamedTuple):
  """One window on the way, along one axis.

  Attributes:
    size: cells of the input that an output cell sees.
    stride: cells from window to window.
    before: cells of padding ahead of the first.
    cells: length of the input.
  """

  size: int
  stride: int
  before: int
  cells: int


def interval(
  model: ml_collections.ConfigDict, crop_size: int, layer: str, place: int
) -> tuple[int, int]:
  """Pixels that a row (or column) of a layer's maps sees.

  Args:
    model: `config.model`.
    crop_size: side of the network's input, in pixels.
    layer: whose maps, before its own norms and pools.
    place: number of the row, from 0.

  Returns:
    First pixel and one past the last, within the input; all of it for dense
    layers.
  """
  first = last = place
  windows = _windows(model, crop_size, layer)
  if windows is None:
    return 0, crop_size
  for size, stride, before, cells in reversed(windows):
    first = max(first * stride - before, 0)
    last = min(last * stride - before + size, cells) - 1
  return first, last + 1


def _windows(
  model: ml_collections.ConfigDict, crop_size: int, layer: str
) -> list[Window] | None:
  """From the input on; None for layers that see all of it."""
  windows, cells = [], crop_size
  for name, row in alexnet.layer_table(model).items():
    if row.kind in ('dense', 'head'):
      return None
    before, after = row.padding
    windows.append(Window(row.kernel, row.stride, before, cells))
    cells = (cells + before + after - row.kernel) // row.stride + 1
    if name == layer:
      return windows
    for operation in row.after:
      if operation.endswith('_pool'):
        size, stride = model.pool.size, model.pool.stride
        windows.append(Window(size, stride, 0, cells))
        cells = layers.count_windows(cells, size, stride, model.pool.ceil)
      elif operation == 'spatial_norm':
        size = model.spatial_norm.size
        windows.append(Window(size, 1, size // 2, cells))
  return None
