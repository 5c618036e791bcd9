"""What the channels of a layer respond to, in crops of training images."""

import numpy as np
from matplotlib import axes, figure

from alexnet_jax import trained
from alexnet_jax.analysis import exciting
from alexnet_jax.figures import picture
from alexnet_jax.models import alexnet

_CELL = 0.78  # inches
_LABEL = 0.95


def choose(run: trained.Trained, layer: str, count: int = 8) -> np.ndarray:
  """`count` channels of a layer, spread evenly over all towers: [count].

  Raises:
    UserError: where the network has no such layer.
  """
  channels = exciting.num_channels(run.config.model, layer)
  count = min(count, channels)
  return np.arange(count) * channels // count


def draw(
  run: trained.Trained,
  layer: str,
  found: exciting.Excited,
  crops: list[list[np.ndarray]],
) -> figure.Figure:
  """A row for each channel: its crops, the most exciting first, to one scale.

  Pale grey is beyond the image.

  Args:
    run: the network.
    layer: which layer's channels.
    found: of `exciting.find`.
    crops: of `exciting.crops`.
  """
  rows, columns = found.records.shape
  side = max(max(crop.shape[:2]) for row in crops for crop in row)
  width, height = _CELL * columns + _LABEL, _CELL * rows
  chart = figure.Figure((width, height))
  cells = chart.subplots(
    rows,
    columns,
    squeeze=False,
    gridspec_kw={
      'left': _LABEL / width,
      'right': 0.995,
      'bottom': 0.03 / height,
      'top': 1 - 0.03 / height,
      'wspace': 0.06,
      'hspace': 0.06,
    },
  )
  for axis in cells.flat:
    axis.set_axis_off()
  for row, channel in enumerate(found.channels):
    label = _label(run, layer, int(channel))
    cells[row, 0].text(
      -0.08,
      0.5,
      label,
      transform=cells[row, 0].transAxes,
      ha='right',
      va='center',
      fontsize=9,
    )
    for axis, crop in zip(cells[row], crops[row], strict=False):
      _place(axis, crop, side)
  return chart


def _place(axis: axes.Axes, crop: np.ndarray, side: int) -> None:
  """In the middle of `side` x `side` pixels."""
  height, width = crop.shape[:2]
  small = side <= 64  # whose pixels are to be seen as they are
  axis.imshow(crop, interpolation='nearest' if small else 'antialiased')
  centre = np.array([-side, side]) / 2
  axis.set(xlim=centre + (width - 1) / 2, ylim=centre[::-1] + (height - 1) / 2)
  axis.set(xticks=[], yticks=[], facecolor='0.9')
  axis.spines[:].set_visible(False)
  axis.set_axis_on()


def _label(run: trained.Trained, layer: str, channel: int) -> str:
  row = alexnet.layer_table(run.config.model)[layer]
  if row.kind == 'head':
    return picture.short(run.readable_names[channel], 14, 2)
  tower, own = divmod(channel, row.features)
  kind = 'unit' if row.kind == 'dense' else 'map'
  if run.config.model.towers == 1:
    return f'{kind} {own}'
  return f'tower {tower + 1}\n{kind} {own}'
