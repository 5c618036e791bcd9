r"""Draws the training images that activate a layer's channels most.

    python -m alexnet_jax.tools.top_activations --workdir=runs/alexnet \
        --layer=conv5 --output=conv5.png

Each row is a channel, the highest activation first. A cross marks the place
where the channel's map is highest, before the activation function. Channels are
numbered over all towers, one tower after the other.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.models import alexnet
from alexnet_jax.tools import features, figures
from alexnet_jax.tools import flags as tool_flags

FLAGS = flags.FLAGS


def _num_channels(run: trained.TrainedRun, layer: str) -> int:
  model, row = run.config.model, alexnet.layer_row(run.config.model, layer)
  if row.kind == 'head':
    return model.num_classes
  return model.towers * row.features


def choose(run: trained.TrainedRun, layer: str, count: int = 8) -> list[int]:
  """Returns `count` channels, spread evenly over all towers."""
  total = _num_channels(run, layer)
  count = min(count, total)
  return [i * total // count for i in range(count)]


def find(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  layer: str,
  channels: Sequence[int],
  *,
  count: int = 9,
  batch_size: int = 128,
) -> dict[str, np.ndarray]:
  """Finds the highest activations, at most one place of each training image.

  Returns:
    Arrays [channels, count], highest first: 'score', the activation; 'record',
    the number of the image, the lower one first where two are equal; 'y' and
    'x', the place in the map, as fractions of its height and width.

  Raises:
    UserError: If a layer or channel does not exist, or batches cannot be
      divided among the devices.
  """
  total = _num_channels(run, layer)
  if max(channels) >= total:
    raise errors.UserError(
      f'channels={max(channels)} is not in {layer}; give numbers from 0 to '
      f'{total - 1}.'
    )
  extract = trained.create_extractor(
    run,
    layer,
    batch_size,
    trained.MAPS,
    functools.partial(_highest, np.array(channels)),
  )
  stream = features.batches(extract, run, prepared, 'train', batch_size)
  transposed = ({name: x.T for name, x in made.items()} for made in stream)
  return features.rank(transposed, count)


def _highest(channels: np.ndarray, maps: jax.Array) -> dict[str, jax.Array]:
  """[N, H, W, C] or [N, C] -> the highest place of each map, [N, channels]."""
  maps = maps[..., channels]
  if maps.ndim == 2:
    maps = maps[:, None, None, :]
  count, height, width, _ = maps.shape
  flat = maps.reshape(count, height * width, len(channels))
  row, column = jnp.divmod(flat.argmax(axis=1), width)
  y, x = (row + 0.5) / height, (column + 0.5) / width
  return {'score': flat.max(axis=1), 'y': y, 'x': x}


def draw(
  run: trained.TrainedRun,
  prepared: records.PreparedSet,
  layer: str,
  channels: Sequence[int],
  found: dict[str, np.ndarray],
) -> figures.Figure:
  """Draws a row of images for each channel, the highest activation first."""
  row = alexnet.layer_row(run.config.model, layer)
  size = run.config.data.crop_size
  margin = (prepared.image_size - size) // 2
  rows, columns = found['record'].shape
  chart = figures.create(0.9 * columns + 1, 0.9 * rows, layout='constrained')
  cells = chart.subplots(rows, columns, squeeze=False)
  for i, channel in enumerate(channels):
    label = _label(run, row, channel)
    cells[i, 0].set_ylabel(label, rotation=0, ha='right', va='center')
    images = pipeline.read_images(prepared, 'train', found['record'][i])
    patches = images[:, margin : margin + size, margin : margin + size]
    for axis, patch, x, y in zip(
      cells[i], patches, found['x'][i], found['y'][i], strict=True
    ):
      figures.show(axis, patch)
      if 'kernel' in row:
        place = x * size - 0.5, y * size - 0.5
        axis.plot(*place, 'P', color='white', markeredgecolor='black')
  return chart


def _label(
  run: trained.TrainedRun, row: ml_collections.ConfigDict, channel: int
) -> str:
  if row.kind == 'head':
    return figures.short(run.readable_names[channel], 14, 2)
  tower, own = divmod(channel, row.features)
  several = run.config.model.towers > 1
  return f'tower {tower + 1}\nno. {own}' if several else f'no. {own}'


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_picture('top_activations.png')
  tool_flags.define_data()
  flags.DEFINE_string('layer', 'conv5', 'Layer whose channels are drawn.')
  flags.DEFINE_list('channels', [], 'Channels; by default --count of them.')
  flags.DEFINE_integer('count', 8, 'Number of channels.', lower_bound=1)
  flags.DEFINE_integer('images', 9, 'Images for each channel.', lower_bound=1)


def main(_) -> None:
  """Writes the picture."""
  run, layer = tool_flags.load_run(), FLAGS.layer
  channels = command_line.whole_numbers('channels', FLAGS.channels)
  channels = channels or choose(run, layer, FLAGS.count)
  prepared, size = run.open_data(), FLAGS.batch_size
  found = find(
    run, prepared, layer, channels, count=FLAGS.images, batch_size=size
  )
  figures.write(draw(run, prepared, layer, channels, found), FLAGS.output)


if __name__ == '__main__':
  command_line.run(main, define_flags)
