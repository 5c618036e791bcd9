r"""Draws the training images' crops that excite a layer's channels most.

    python -m experiments.exciting --workdir=runs/alexnet --layer=conv5 \
        --output=conv5.png
    python -m experiments.exciting --workdir=runs/alexnet --layer=conv1 \
        --channels=0,7,48

A crop is what the most excited place of the layer's maps sees, before their
activation; dense layers see the whole patch. Channels are counted over all
towers, one after the other.
"""

import numpy as np
from absl import flags
from matplotlib import figure

from alexnet_jax import errors, trained
from alexnet_jax.analysis import exciting
from alexnet_jax.figures import exciting as drawing
from experiments import figure_program, network_flags

_LAYER = flags.DEFINE_string('layer', 'conv5', 'Whose channels.')
_CHANNELS = flags.DEFINE_list(
  'channels', [], 'Their numbers; by default some spread over the towers.'
)
_COUNT = flags.DEFINE_integer(
  'count', 8, 'How many channels, where none are named.', lower_bound=1
)
_CROPS = flags.DEFINE_integer('crops', 9, 'How many of each.', lower_bound=1)


def _channels(run: trained.Trained) -> np.ndarray:
  if not _CHANNELS.value:
    return drawing.choose(run, _LAYER.value, _COUNT.value)
  total = exciting.num_channels(run.config.model, _LAYER.value)
  for text in _CHANNELS.value:
    if not text.isdecimal() or int(text) >= total:
      raise errors.UserError(
        f'--channels={text} is no channel of {_LAYER.value}; give numbers '
        f'from 0 to {total - 1}.'
      )
  return np.array([int(text) for text in _CHANNELS.value])


def _draw(run: trained.Trained) -> figure.Figure:
  layer, channels, prepared = _LAYER.value, _channels(run), run.open_data()
  found = exciting.find(
    run,
    prepared,
    layer,
    channels,
    count=_CROPS.value,
    batch_size=network_flags.BATCH_SIZE.value,
  )
  crops = exciting.crops(run, prepared, layer, found)
  return drawing.draw(run, layer, found, crops)


if __name__ == '__main__':
  figure_program.run(_draw, 'exciting.png')
