"""A data set and a config small enough to train in seconds.

As a config file: `--config=tests/tiny.py:DATA_DIR`.
"""

import json

import numpy as np
import tensorflow as tf

from alexnet_jax.data import prepare, records, sources
from configs import alexnet

SIZE = 32
COUNTS = {'train': 60, 'validation': 21}
CLASSES = ('red', 'green', 'blue')


def _image(split: str, index: int) -> tuple[bytes, int]:
  """Noise in which the label's colour channel is brighter."""
  rng = np.random.default_rng([index, len(split)])
  image = rng.integers(0, 160, (SIZE, SIZE, 3))
  image[..., index % 3] += 60
  return tf.io.encode_png(image.astype(np.uint8)).numpy(), index % 3


def prepare_tiny(data_dir, first_image: int = 0) -> records.PreparedSet:
  """Prepares the set under `data_dir`, with raw images."""

  def examples(split: str, start: int) -> tf.data.Dataset:
    images, labels = zip(
      *(_image(split, first_image + i) for i in range(COUNTS[split])),
      strict=True,
    )
    return tf.data.Dataset.from_tensor_slices(
      {
        'image': list(images),
        'label': np.array(labels, np.int64),
        'name': [f'{split}/{i}' for i in range(COUNTS[split])],
      }
    ).skip(start)

  source = sources.Source('tiny', CLASSES, SIZE, COUNTS, examples)
  return prepare.prepare(source, str(data_dir))


def renew_digest(directory, shard) -> None:
  """After the first shard of training was changed."""
  info = json.loads((directory / 'info.json').read_text())
  info['shards']['train'][0]['sha256'] = records.sha256(shard)
  (directory / 'info.json').write_text(json.dumps(info))


def get_config(data_dir: str):
  """The eight-layer two-tower network, very narrow, for ten steps."""
  config = alexnet.get_config('cifar10')
  model = config.model
  widths = {'conv1': 4, 'conv2': 6, 'conv3': 8, 'conv4': 8, 'conv5': 6}
  for layer, features in (widths | {'fc6': 16, 'fc7': 16}).items():
    model[layer].features = features
    model[layer].init_bias = 0.0
  model.init = 'he'
  model.num_classes = len(CLASSES)
  config.data.update({'name': 'tiny', 'dir': data_dir, 'scale': 64.0})
  config.batch_size = 16
  config.train_steps = 10
  config.log_every_steps = 1
  config.eval_every_steps = 5
  config.checkpoint_every_steps = 5
  config.num_devices = 1
  config.schedule.name = 'epochs'
  return config


def get_one_tower_config(data_dir: str):
  """The same in one column."""
  config = get_config(data_dir)
  config.model.towers = 1
  return config
