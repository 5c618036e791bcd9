"""Loaders on PyTorch: a DataLoader over a list of JPEG files."""

from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torchvision import io, transforms

from experiments.benchmarks import input_worker

# As many as ImageNet's images, by repetition.
_EPOCH = 1_281_167


class _Files:
  """A map-style data set of decoded and augmented files."""

  def __init__(self, paths: list[str], load: Callable[[str], torch.Tensor]):
    self._paths, self._load = paths, load

  def __len__(self) -> int:
    return _EPOCH

  def __getitem__(self, index: int) -> torch.Tensor:
    return self._load(self._paths[index % len(self._paths)])


def pil(job: input_worker.Job) -> Iterator[torch.Tensor]:
  """Yields batches that PIL decodes."""
  augment = _augmentation(job, transforms.PILToTensor())

  def load(path: str) -> torch.Tensor:
    with Image.open(path) as image:
      return augment(image.convert('RGB'))

  return _batches(job, load)


def torchvision_io(job: input_worker.Job) -> Iterator[torch.Tensor]:
  """Yields batches that torchvision.io decodes."""
  augment = _augmentation(job)

  def load(path: str) -> torch.Tensor:
    return augment(io.decode_jpeg(io.read_file(path), io.ImageReadMode.RGB))

  return _batches(job, load)


def _augmentation(job: input_worker.Job, *last: Callable) -> Callable:
  # transforms, not transforms.v2: the same on single images, in less time.
  crop = transforms.RandomCrop(job.data['crop_size'])
  flip = transforms.RandomHorizontalFlip()
  return transforms.Compose([crop, flip, *last])


def _batches(
  job: input_worker.Job, load: Callable[[str], torch.Tensor]
) -> Iterator[torch.Tensor]:
  """Yields batches [B, 3, c, c] without end."""
  loader = torch.utils.data.DataLoader(
    _Files(job.files('files'), load),
    batch_size=job.batch_size,
    shuffle=True,
    num_workers=job.workers,
    prefetch_factor=input_worker.AHEAD,
    persistent_workers=True,
    drop_last=True,
    generator=torch.Generator().manual_seed(job.seed),
  )
  while True:
    yield from loader


if __name__ == '__main__':
  input_worker.serve(
    {'torch, PIL': pil, 'torch, torchvision.io': torchvision_io}
  )
