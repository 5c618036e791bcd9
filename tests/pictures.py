"""Small pictures, and sources and prepared sets made of them."""

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from alexnet_jax import errors
from alexnet_jax.data import pipeline, prepare, records, sources


def smooth(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
  """Draws a picture of waves with all grey levels: JPEG keeps it well."""
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


def write(root: pathlib.Path, files: dict[str, bytes]) -> None:
  """Writes files of given contents under `root`."""
  for path, content in files.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def source(
  train: list[bytes], held_out: list[bytes] | None = None, labels=None, **fields
) -> sources.Source:
  """Returns a source of encoded pictures; picture i has label i mod 2.

  Args:
    train: Encoded training pictures.
    held_out: Encoded validation pictures; None for the first of training.
    labels: Labels of both splits, if they are not i mod 2.
    **fields: Other fields of the source.
  """
  splits = {'train': train, 'validation': held_out or train[:1]}

  def examples(split: str, start: int) -> tf.data.Dataset:
    count = len(splits[split])
    return tf.data.Dataset.from_tensor_slices(
      {
        'image': splits[split],
        'label': np.arange(count) % 2 if labels is None else labels[:count],
        'name': [f'{split}/picture {i}' for i in range(count)],
      }
    ).skip(start)

  counts = {split: len(encoded) for split, encoded in splits.items()}
  fields = {'name': 'pictures', 'native_size': None} | fields
  fields = {'class_names': ('even', 'odd')} | fields
  return sources.Source(num_examples=counts, examples=examples, **fields)


def watched(source: sources.Source) -> tuple[sources.Source, list]:
  """Returns the same source, and a list of what it is asked for.

  The list is of (split, start).
  """
  starts = []

  def examples(split: str, start: int) -> tf.data.Dataset:
    starts.append((split, start))
    return source.examples(split, start)

  return dataclasses.replace(source, examples=examples), starts


def stored(prepared: records.PreparedSet, split: str) -> np.ndarray:
  """Returns all pixels of a split, [N, S, S, 3]."""
  return pipeline.read_images(
    prepared, split, np.arange(prepared.num_examples(split))
  )


def run_prepare(*arguments: str) -> None:
  """Does what `python -m alexnet_jax.data.prepare` does, in this process."""
  with flagsaver.flagsaver():
    prepare.define_flags()
    prepare.main(flags.FLAGS(['prepare', *arguments])[1:])


def refusal(function, *args, **kwargs) -> str:
  """Returns the message of the UserError of a call, which is one line."""
  with pytest.raises(errors.UserError) as failure:
    function(*args, **kwargs)
  assert '\n' not in str(failure.value)
  return str(failure.value)
