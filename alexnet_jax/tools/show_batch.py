r"""Draws a training batch before and after each stage of its augmentation.

    python -m alexnet_jax.tools.show_batch --config=configs/alexnet.py:shapes \
        --output=batch.png

Top to bottom: the stored image with the drawn crop, the crop, the crop as the
pipeline delivers it (mirrored or not), less the mean image (grey is zero), and
with colour noise, the mean added back to look at.
"""

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, validate
from alexnet_jax.data import (
  augment,
  pipeline,
  prepare,
  preprocessing,
  records,
)
from alexnet_jax.tools import figures
from alexnet_jax.tools import flags as tool_flags

FLAGS = flags.FLAGS
_GREY = 128


def _stages(
  config: ml_collections.ConfigDict,
  prepared: records.PreparedSet,
  batch: pipeline.Batch,
  draws: augment.Draws,
) -> dict[str, list[np.ndarray]]:
  """Returns the pictures of each stage, 0-255, by the stage's name."""
  size, kind = config.data.crop_size, config.data.color_noise
  stored = pipeline.read_images(prepared, 'train', draws.records)
  preprocess = preprocessing.from_statistics(prepared, config.data)
  centred = preprocess(batch['image']) * preprocess.scale
  stages = {
    'stored': stored,
    'cropped': [
      image[top : top + size, left : left + size]
      for image, (top, left) in zip(stored, draws.corners, strict=True)
    ],
    'delivered': batch['image'],
    'mean\nsubtracted': centred + _GREY,
  }
  if kind != 'none':
    key = augment.random_key(config.seed, 'color_noise')
    noisy = augment.color_noise(centred, key, batch['index'], preprocess, kind)
    mean = batch['image'] - centred
    stages[f'colour noise\n({kind})'] = noisy + mean
  return stages


def draw(
  config: ml_collections.ConfigDict, step: int, count: int
) -> figures.Figure:
  """Draws the first `count` examples of batch `step`, one in each column."""
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
  return _plot(stages, draws, names, config.data.crop_size)


def _plot(
  stages: dict[str, list[np.ndarray]],
  draws: augment.Draws,
  names: list[str],
  size: int,
) -> figures.Figure:
  from matplotlib import patches

  rows, columns = len(stages), len(names)
  chart = figures.create(1.6 * columns + 1, 1.7 * rows, layout='constrained')
  axes = chart.subplots(rows, columns, squeeze=False)
  for row, (stage, pictures) in zip(axes, stages.items(), strict=True):
    for axis, pixels in zip(row, pictures, strict=True):
      figures.show(axis, np.clip(pixels, 0, 255).astype(np.uint8))
    row[0].set_ylabel(stage, rotation=0, ha='right', va='center')
  for i, ((top, left), flip) in enumerate(
    zip(draws.corners, draws.flips, strict=True)
  ):
    box = patches.Rectangle((left, top), size, size, fill=False, color='red')
    axes[0, i].add_patch(box)
    axes[0, i].set_title(figures.short(names[i], 20), fontsize=9)
    axes[2, i].set_xlabel('mirrored' if flip else '', fontsize=8)
  return chart


def define_flags() -> None:
  """Defines the flags of this tool."""
  config_flags.DEFINE_config_file(
    'config', 'configs/quickstart.py', 'A file of configs/, or FILE:DATA.'
  )
  tool_flags.define_picture('batch.png')
  flags.DEFINE_integer('step', 0, 'Number of the batch.', lower_bound=0)
  flags.DEFINE_integer('count', 8, 'Examples to draw.', lower_bound=1)


def main(_) -> None:
  """Writes the picture."""
  command_line.set_up_jax()
  validate.check_config(FLAGS.config)
  chart = draw(FLAGS.config, FLAGS.step, FLAGS.count)
  figures.write(chart, FLAGS.output)


if __name__ == '__main__':
  command_line.run(main, define_flags)
