"""The first layer's kernels by tower (paper, Figure 3)."""

import math

import numpy as np
from matplotlib import figure

from alexnet_jax import errors, trained
from alexnet_jax.figures import picture
from alexnet_jax.models import alexnet

# Of a block; the paper's 48 kernels a GPU are 3 rows of 16.
_COLUMNS = 16
# Widths in pixels.
_WIDTH, _MARGIN, _LABEL = 1200, 16, 56


def read(run: trained.Trained) -> np.ndarray:
  """The kernels as numpy: [T, k, k, 3, F], as trained.

  Raises:
    UserError: where the first layer's kernels are not those of a convolution.
  """
  rows = alexnet.layer_table(run.config.model)
  name, row = next(iter(rows.items()))
  if row.kind != 'conv':
    raise errors.UserError(
      f'{name} is of kind {row.kind!r} and has no kernels to show; give a run '
      "whose first layer's kind is 'conv'."
    )
  return run.plan.get_state(run.params[name]['kernel'], True)


def draw(run: trained.Trained) -> figure.Figure:
  """A block of kernels for each tower, a pixel of a kernel a square.

  Each kernel is divided by its own largest absolute weight, all three colours
  alike: grey is zero, and signs and hues show, but not which kernel is strong.
  """
  kernels = read(run)
  count, side, *_, features = kernels.shape
  columns = math.ceil(features / math.ceil(features / _COLUMNS))
  scale = max(_WIDTH // (columns * (side + 1)), 1)
  blocks = [_block(tower, columns) for tower in kernels]
  blocks = [block.repeat(scale, 0).repeat(scale, 1) for block in blocks]
  height, width, _ = blocks[0].shape
  left = _LABEL if count > 1 else _MARGIN
  total_width = left + width + _MARGIN
  total_height = count * (height + _MARGIN) + _MARGIN
  # A picture's pixel for each of these.
  chart = figure.Figure((total_width / picture.DPI, total_height / picture.DPI))
  for tower, block in enumerate(blocks):
    top = _MARGIN + tower * (height + _MARGIN)
    bottom = total_height - top - height
    axis = chart.add_axes(
      (
        left / total_width,
        bottom / total_height,
        width / total_width,
        height / total_height,
      )
    )
    axis.imshow(block, interpolation='nearest')
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if count > 1:
      axis.set_ylabel(f'tower {tower + 1}', fontsize=11)
  return chart


def _block(kernels: np.ndarray, columns: int) -> np.ndarray:
  """[k, k, 3, F] -> one image in 0..1, kernels a white pixel apart."""
  side, _, colours, features = kernels.shape
  strongest = np.abs(kernels).max(axis=(0, 1, 2))
  shown = 0.5 + 0.5 * kernels / np.where(strongest > 0, strongest, 1)
  rows = math.ceil(features / columns)
  cells = np.ones((rows * columns, side + 1, side + 1, colours))
  cells[:features, :side, :side] = shown.transpose(3, 0, 1, 2)
  block = cells.reshape(rows, columns, *cells.shape[1:])
  block = block.transpose(0, 2, 1, 3, 4)  # [rows, k + 1, columns, k + 1, 3]
  block = block.reshape(rows * (side + 1), columns * (side + 1), colours)
  return block[:-1, :-1]
