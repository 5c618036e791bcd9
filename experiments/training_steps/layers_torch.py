"""Each layer of PyTorch's network by itself, forward and backward."""

import ml_collections
import torch
from torch import nn

from experiments.benchmarking import worker
from experiments.training_steps import torch_network


def layer_runs(
  config: ml_collections.ConfigDict,
) -> dict[str, worker.Run]:
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


def _forward(layer: nn.Module, x: torch.Tensor) -> worker.Run:
  @torch.no_grad()
  def run():
    layer(x)
    return _nothing_to_wait_for

  return run


def _nothing_to_wait_for() -> None:
  """PyTorch's work on a CPU is done when a call returns."""


def _both(layer: nn.Module, x: torch.Tensor) -> worker.Run:
  wanted = [*layer.parameters(), *([x] if x.requires_grad else [])]

  def run():
    y = layer(x)
    torch.autograd.grad(y, wanted, torch.ones_like(y))
    return _nothing_to_wait_for

  return run
