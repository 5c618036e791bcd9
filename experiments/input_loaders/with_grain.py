"""Loaders on Grain: random access to the prepared set, worker processes."""

import io
import pathlib
from collections.abc import Callable

import grain
import numpy as np
from PIL import Image

from experiments.input_loaders import contenders

# Of each process. The defaults, 16 threads and 500 images, are for slow disks;
# on images in memory they are slower and buffer for seconds.
_THREADS = 2
_IMAGES_AHEAD = 64


def pil(job: contenders.Job) -> contenders.Batches:
  """Decoded by PIL, as in Grain's documentation."""
  return _batches(job, _decode_pil)


def opencv(job: contenders.Job) -> contenders.Batches:
  """Decoded by OpenCV."""
  return _batches(job, _decode_opencv)


def _batches(
  job: contenders.Job, decode: Callable[[bytes], np.ndarray]
) -> contenders.Batches:
  size = job.crop_size

  def augment(encoded: bytes, rng: np.random.Generator) -> np.ndarray:
    image = decode(encoded)
    top, left = rng.integers(0, image.shape[0] - size + 1, 2)
    image = image[top : top + size, left : left + size]
    return image[:, ::-1] if rng.random() < 0.5 else image

  source = grain.sources.ArrayRecordDataSource(job.images.array_records())
  dataset = grain.MapDataset.source(source).seed(job.seed).shuffle().repeat()
  readers = grain.ReadOptions(_THREADS, _IMAGES_AHEAD)
  dataset = dataset.random_map(augment).to_iter_dataset(readers)
  dataset = dataset.batch(job.batch_size, drop_remainder=True)
  processes = grain.MultiprocessingOptions(job.workers, contenders.AHEAD)
  return iter(dataset.mp_prefetch(processes))


def _decode_pil(encoded: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


def _decode_opencv(encoded: bytes) -> np.ndarray:
  # Not needed by those who take PIL.
  import cv2

  encoded = np.frombuffer(encoded, np.uint8)
  return cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)


def decode_opencv(path: str) -> np.ndarray:
  """As `opencv` does it."""
  return _decode_opencv(pathlib.Path(path).read_bytes())
