"""Each layer of PyTorch's network by itself, forward and backward."""

from collections.abc import Callable

import ml_collections
import torch
from torch import nn

from experiments.training_steps import torch_network


def layer_runs(
  config: ml_collections.ConfigDict,
) -> dict[str, Callable[[], None]]:
  """What to time: '<layer> forward' and '<layer> both', with the backward."""
  network = torch_network.build(config, fast_lrn=False)
  network.to(memory_format=torch.channels_last)
  size = config.data.crop_size
  x = torch.ones(config.batch_size, 3, size, size)
  x, runs = x.contiguous(memory_format=torch.channels_last), {}
  for name, layer in network.named_children():
    runs[f'{name} forward'] = _forward(layer, x)
    runs[f'{name} both'] = _both(layer, x)
    with torch.no_grad():
      # The images need no gradient.
      x = layer(x).requires_grad_()
  return runs


def _forward(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
  @torch.no_grad()
  def run() -> None:
    layer(x)

  return run


def _both(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
  wanted = [*layer.parameters(), *([x] if x.requires_grad else [])]

  def run() -> None:
    y = layer(x)
    torch.autograd.grad(y, wanted, torch.ones_like(y))

  return run
