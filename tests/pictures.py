"""Small pictures, and sources and prepared sets made of them."""

import dataclasses

import numpy as np
import tensorflow as tf

from alexnet_jax.data import records, sources


def smooth(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
  """A picture of waves with all grey levels: JPEG keeps it well."""
  rng = np.random.default_rng(seed)
  y, x, _ = np.mgrid[:height, :width, :1] / 64
  waves = rng.uniform(1, 3, (3, channels))
  waves = np.sin(waves[0] * x + waves[1] * y + 2 * waves[2])
  return (127.5 + 120 * waves).round().astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
  return tf.io.encode_png(pixels).numpy()


def jpeg(pixels: np.ndarray) -> bytes:
  return tf.io.encode_jpeg(
    pixels, quality=95, chroma_downsampling=False
  ).numpy()


def source(
  train: list[bytes], held_out: list[bytes] | None = None, **fields
) -> sources.Source:
  """A source of encoded pictures; picture i has label i mod 2."""
  splits = {'train': train, 'validation': held_out or train[:1]}

  def examples(split: str, start: int) -> tf.data.Dataset:
    count = len(splits[split])
    return tf.data.Dataset.from_tensor_slices(
      {
        'image': splits[split],
        'label': np.arange(count) % 2,
        'name': [f'{split}/picture {i}' for i in range(count)],
      }
    ).skip(start)

  counts = {split: len(encoded) for split, encoded in splits.items()}
  fields = {'name': 'pictures', 'native_size': None} | fields
  return sources.Source(
    class_names=('even', 'odd'),
    num_examples=counts,
    examples=examples,
    **fields,
  )


def watched(source: sources.Source) -> tuple[sources.Source, list]:
  """The same source, and what it will be asked for: (split, start)s."""
  starts = []

  def examples(split: str, start: int) -> tf.data.Dataset:
    starts.append((split, start))
    return source.examples(split, start)

  return dataclasses.replace(source, examples=examples), starts


def stored(prepared: records.PreparedSet, split: str) -> np.ndarray:
  """All pixels of a split, [N, S, S, 3]."""
  split = prepared.open_split(split)
  rows = np.arange(len(split.labels))
  if isinstance(split, records.RawSplit):
    return np.stack([split[row] for row in rows])
  return np.stack(
    [
      tf.io.decode_jpeg(jpeg, channels=3, dct_method='INTEGER_ACCURATE')
      for jpeg in split.read(rows)
    ]
  )
