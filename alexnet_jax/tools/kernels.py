"""Draws the first layer's kernels by tower (paper, Figure 3).

python -m alexnet_jax.tools.kernels --workdir=runs/alexnet --output=kernels.png
"""

import math

import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, trained
from alexnet_jax.models import alexnet
from alexnet_jax.tools import figures
from alexnet_jax.tools import flags as tool_flags

# The paper's 48 kernels of a GPU are 3 rows of 16.
_COLUMNS = 16
_WIDTH, _MARGIN, _LABEL = 1200, 16, 56  # pixels


def read(run: trained.TrainedRun) -> np.ndarray:
  """Returns the first layer's kernels, [T, k, k, 3, F].

  Raises:
    UserError: If the first layer is no convolution.
  """
  name, row = next(iter(alexnet.layer_table(run.config.model).items()))
  if row.kind != 'conv':
    raise errors.UserError(
      f'{name} is of kind {row.kind!r} and has no kernels to show; give a run '
      "whose first layer's kind is 'conv'."
    )
  return run.plan.get_state(run.params[name]['kernel'], True)


def draw(run: trained.TrainedRun) -> figures.Figure:
  """Draws a block of kernels for each tower; every weight is a square.

  Each kernel is divided by its own largest absolute weight, all three colours
  alike: grey is zero, and signs and hues show, but not which kernel is strong.
  """
  blocks = [_block(kernels) for kernels in read(run)]
  scale = max(_WIDTH // blocks[0].shape[1], 1)
  blocks = [block.repeat(scale, 0).repeat(scale, 1) for block in blocks]
  height, width, _ = blocks[0].shape
  left = _LABEL if len(blocks) > 1 else _MARGIN
  size = np.array(
    [left + width + _MARGIN, len(blocks) * (height + _MARGIN) + _MARGIN]
  )
  chart = figures.create(*size / figures.DPI, dpi=figures.DPI)
  for tower, block in enumerate(reversed(blocks)):
    bottom = _MARGIN + tower * (height + _MARGIN)
    chart.figimage(block, left, bottom)
    if len(blocks) > 1:
      label, place = len(blocks) - tower, (left / 2, bottom + height / 2)
      chart.text(
        *place / size, f'tower {label}', rotation=90, ha='center', va='center'
      )
  return chart


def _block(kernels: np.ndarray) -> np.ndarray:
  """[k, k, 3, F] -> one image in 0..1, kernels a white pixel apart."""
  side, _, colours, features = kernels.shape
  rows = math.ceil(features / _COLUMNS)
  columns = math.ceil(features / rows)
  strongest = np.abs(kernels).max(axis=(0, 1, 2))
  shown = 0.5 + 0.5 * kernels / np.where(strongest > 0, strongest, 1)
  cells = np.ones((rows * columns, side + 1, side + 1, colours))
  cells[:features, :side, :side] = shown.transpose(3, 0, 1, 2)
  block = cells.reshape(rows, columns, *cells.shape[1:])
  block = block.transpose(0, 2, 1, 3, 4)  # [rows, k + 1, columns, k + 1, 3]
  block = block.reshape(rows * (side + 1), columns * (side + 1), colours)
  return block[:-1, :-1]


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_picture('kernels.png')


def main(_) -> None:
  """Writes the picture."""
  run = tool_flags.load_run()
  figures.write(draw(run), flags.FLAGS.output)


if __name__ == '__main__':
  command_line.run(main, define_flags)
