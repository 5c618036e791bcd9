r"""Draws a training batch before and after each stage of its augmentation.

    python -m experiments.show_batch --config=configs/alexnet.py:shapes \
        --output=batch.png

Top to bottom: the stored image with the drawn crop, the crop, the crop as the
pipeline delivers it (mirrored or not), less the mean image (grey is zero), and
with colour noise, the mean added back to look at.
"""

import pathlib

import ml_collections
import numpy as np
from absl import flags
from matplotlib import figure, patches
from ml_collections import config_flags

from alexnet_jax import command_line, validate
from alexnet_jax.data import (
  augment,
  pipeline,
  prepare,
  preprocessing,
  records,
)
from alexnet_jax.figures import picture

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  'configs/quickstart.py',
  'A file of configs/, optionally with :DATA.',
)
_OUTPUT = flags.DEFINE_string('output', 'batch.png', 'Picture to write.')
_STEP = flags.DEFINE_integer('step', 0, 'Number of the batch.', lower_bound=0)
_COUNT = flags.DEFINE_integer(
  'count', 8, 'Examples to draw, from the first on.', lower_bound=1
)
_GREY = 128


def _stages(
  config: ml_collections.ConfigDict,
  prepared: records.PreparedSet,
  batch: pipeline.Batch,
  draws: augment.Draws,
) -> dict[str, list[np.ndarray]]:
  """Pictures of each stage, 0-255, by the stage's name."""
  size = config.data.crop_size
  stored = pipeline.read_images(prepared, 'train', draws.records)
  process = preprocessing.from_statistics(prepared, config.data)
  kind = config.data.color_noise
  key = augment.random_key(config.seed, 'color_noise')

  def noise(x):
    return augment.color_noise(x, key, batch['index'], process, kind)

  centred = process(batch['image']) * process.scale
  mean = batch['image'] - centred
  stages = {
    'stored': list(stored),
    'cropped': [
      image[top : top + size, left : left + size]
      for image, (top, left) in zip(stored, draws.corners, strict=True)
    ],
    'delivered': batch['image'],
    'mean\nsubtracted': centred + _GREY,
  }
  if kind != 'none':
    noisy = process(batch['image'], noise) * process.scale
    stages[f'colour noise\n({kind})'] = noisy + mean
  return stages


def draw(
  config: ml_collections.ConfigDict, step: int, count: int
) -> figure.Figure:
  """The first `count` examples of batch `step`, a column each."""
  prepared = prepare.open_or_prepare(config.data)
  batches = pipeline.train_batches(
    prepared,
    config.data,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=step,
    end_step=step + 1,
  )
  batch = {name: array[:count] for name, array in next(batches).items()}
  places = batch['index'].astype(np.int64)
  draws = pipeline.draw_examples(prepared, config.data, config.seed, places)
  stages = _stages(config, prepared, batch, draws)
  names = [prepared.class_names[label] for label in batch['label']]
  return _plot(stages, draws, names, config.data)


def _plot(
  stages: dict[str, list[np.ndarray]],
  draws: augment.Draws,
  names: list[str],
  data: ml_collections.ConfigDict,
) -> figure.Figure:
  rows, columns = len(stages), len(names)
  chart = figure.Figure((1.6 * columns + 1, 1.7 * rows))
  axes = chart.subplots(rows, columns, squeeze=False)
  for row, (stage, pictures) in zip(axes, stages.items(), strict=True):
    for axis, pixels in zip(row, pictures, strict=True):
      axis.imshow(np.clip(pixels, 0, 255).astype(np.uint8))
      axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(stage, rotation=0, ha='right', va='center')
  for i, name in enumerate(names):
    top, left = draws.corners[i]
    side = data.crop_size
    axes[0, i].add_patch(
      patches.Rectangle((left, top), side, side, fill=False, color='red')
    )
    axes[0, i].set_title(name, fontsize=9)
    axes[2, i].set_xlabel('mirrored' if draws.flips[i] else '', fontsize=8)
  chart.tight_layout()
  return chart


def main(_) -> None:
  """Writes the picture."""
  output = pathlib.Path(_OUTPUT.value)
  picture.check_path(output)
  validate.check_config(_CONFIG.value)
  output.parent.mkdir(parents=True, exist_ok=True)
  draw(_CONFIG.value, _STEP.value, _COUNT.value).savefig(output, dpi=80)
  print(output)


if __name__ == '__main__':
  command_line.run(main)
