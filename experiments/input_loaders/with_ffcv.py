"""Loaders on FFCV: its own file, compiled crops, one thread pool.

FFCV has no plain random crop, so one is written here the way that its decoders
are: the image is decoded whole, then the window copied out of it.
"""

import pathlib

import cv2
import numpy as np
from ffcv import DatasetWriter, Loader, libffcv
from ffcv.fields import RGBImageField
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.loader import OrderOption
from ffcv.transforms import RandomHorizontalFlip, ToTensor

from experiments.input_loaders import contenders


class _JpegField(RGBImageField):
  """Stores JPEG files as they are; FFCV would decode and encode them anew."""

  def encode(self, destination, path: str, malloc) -> None:
    height, width, _ = cv2.imread(path).shape
    encoded = np.frombuffer(pathlib.Path(path).read_bytes(), np.uint8)
    destination['mode'] = IMAGE_MODES['jpg']
    destination['height'], destination['width'] = height, width
    destination['data_ptr'], storage = malloc(encoded.nbytes)
    storage[:] = encoded


class _RawField(RGBImageField):
  """Stores the files' pixels."""

  def encode(self, destination, path: str, malloc) -> None:
    super().encode(destination, cv2.imread(path, cv2.IMREAD_COLOR_RGB), malloc)


class _Files:
  """What FFCV's writer reads."""

  def __init__(self, paths: list[str]):
    self._paths = paths

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> tuple[str]:
    return (self._paths[index],)


class _RandomCrop(RandomResizedCropRGBImageDecoder):
  """A random window, which needs no resizing."""

  @property
  def get_crop_generator(self):
    size = self.output_size[0]

    def crop(height, width, scale, ratio):
      top = np.random.randint(0, height - size + 1)
      left = np.random.randint(0, width - size + 1)
      return top, left, size, size

    return crop


def jpg(job: contenders.Job) -> contenders.Batches:
  """From JPEG."""
  return _batches(job, 'jpg', _JpegField)


def raw(job: contenders.Job) -> contenders.Batches:
  """From raw pixels."""
  return _batches(job, 'raw', _RawField)


def _batches(
  job: contenders.Job, name: str, field: type[RGBImageField]
) -> contenders.Batches:
  paths = job.images.files()
  path = job.images.directory / f'{name}.beton'
  if not path.exists():
    writer = DatasetWriter(str(path), {'image': field()}, num_workers=1)
    writer.from_indexed_dataset(_Files(paths))
  crop = _RandomCrop((job.crop_size, job.crop_size))
  loader = Loader(
    str(path),
    batch_size=job.batch_size,
    num_workers=job.workers,
    os_cache=True,
    order=OrderOption.RANDOM,
    seed=job.seed,
    indices=np.arange(contenders.EPOCH) % len(paths),
    pipelines={'image': [crop, RandomHorizontalFlip(), ToTensor()]},
    custom_fields={'image': field},
    batches_ahead=contenders.AHEAD,
    drop_last=True,
  )
  while True:
    for (batch,) in loader:
      yield batch


def decode(path: str) -> np.ndarray:
  """As FFCV's decoders do it."""
  encoded = np.frombuffer(pathlib.Path(path).read_bytes(), np.uint8)
  image = np.zeros_like(cv2.imread(path))
  height, width, _ = image.shape
  libffcv.imdecode(encoded, image, height, width, height, width)
  return image
