"""Loaders on PyTorch: a DataLoader over a list of JPEG files."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision import io, transforms

from experiments.input_loaders import contenders


class _Files:
  """A map-style data set of decoded and augmented files."""

  def __init__(self, paths: list[str], load: Callable[[str], torch.Tensor]):
    self._paths = paths
    self._load = load

  def __len__(self) -> int:
    return contenders.EPOCH

  def __getitem__(self, index: int) -> torch.Tensor:
    return self._load(self._paths[index % len(self._paths)])


def pil(job: contenders.Job) -> contenders.Batches:
  """Decoded by PIL."""
  augment = _augmentation(job, transforms.PILToTensor())
  return _batches(job, lambda path: augment(_open_pil(path)))


def torchvision_io(job: contenders.Job) -> contenders.Batches:
  """Decoded by torchvision.io."""
  augment = _augmentation(job)
  return _batches(job, lambda path: augment(_open_torchvision_io(path)))


def _augmentation(job: contenders.Job, *last: Callable) -> Callable:
  # transforms, not transforms.v2: the same on single images, in less time.
  crop = transforms.RandomCrop(job.crop_size)
  flip = transforms.RandomHorizontalFlip()
  return transforms.Compose([crop, flip, *last])


def _batches(
  job: contenders.Job, load: Callable[[str], torch.Tensor]
) -> contenders.Batches:
  """Batches [B, 3, c, c] without end."""
  loader = torch.utils.data.DataLoader(
    _Files(job.images.files(), load),
    batch_size=job.batch_size,
    shuffle=True,
    num_workers=job.workers,
    prefetch_factor=contenders.AHEAD,
    persistent_workers=True,
    drop_last=True,
    generator=torch.Generator().manual_seed(job.seed),
  )
  while True:
    yield from loader


def _open_pil(path: str) -> Image.Image:
  with Image.open(path) as image:
    return image.convert('RGB')


def _open_torchvision_io(path: str) -> torch.Tensor:
  return io.decode_jpeg(io.read_file(path), io.ImageReadMode.RGB)


def decode_pil(path: str) -> np.ndarray:
  """As `pil` does it."""
  return np.asarray(_open_pil(path))


def decode_torchvision_io(path: str) -> np.ndarray:
  """As `torchvision_io` does it."""
  return _open_torchvision_io(path).permute(1, 2, 0).numpy()
