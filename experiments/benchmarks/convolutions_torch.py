"""PyTorch's convolutions, for `experiments.benchmarks.convolutions`."""

from collections.abc import Callable

import torch
from torch.nn import functional

from experiments.benchmarks import contest, machine, step_worker

# Which gradients `convolution_backward` returns: inputs, filters, biases.
_WANTED = {
  'gradient of inputs': [True, False, False],
  'gradient of filters': [False, True, False],
}


def _create(job: dict) -> tuple[dict[str, contest.Measure], dict]:
  count, order = job['batch_size'], getattr(torch, job['order'])
  measures = {
    name: step_worker.timed(_start(count, layer, direction, order), count, 1)
    for name, (layer, direction) in job['programs'].items()
  }
  return measures, {'versions': machine.versions(('torch',))}


def _start(
  count: int, layer: dict, direction: str, order: torch.memory_format
) -> step_worker.Start:
  """Returns a function that does a convolution, or one of its gradients."""
  side, channels, kernel = layer['side'], layer['channels'], layer['kernel']
  padding, after = layer['padding']
  more = after - padding
  groups = 1 if layer['shared'] else 2
  x = torch.ones(count, groups * channels, side, side)
  x = functional.pad(x, (0, more, 0, more)).contiguous(memory_format=order)
  filters = torch.ones(2 * layer['features'], channels, kernel, kernel)
  filters = filters.contiguous(memory_format=order)
  stride = layer['stride']
  geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups)
  gradient = torch.ones_like(torch.convolution(x, filters, None, *geometry))

  def start() -> Callable[[], None]:
    if direction == 'forward':
      torch.convolution(x, filters, None, *geometry)
    else:
      torch.ops.aten.convolution_backward(
        gradient, x, filters, None, *geometry, _WANTED[direction]
      )
    return lambda: None

  return start


if __name__ == '__main__':
  contest.serve(_create)
