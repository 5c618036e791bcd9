"""A product of square matrices with as many operations as the training step.

On a machine that is bound by its arithmetic, hardly any step in the same
arithmetic can be faster.
"""

from collections.abc import Callable

import ml_collections
import torch
from torch.utils import flop_counter

from experiments.benchmarks import step_torch, step_worker


class Step(step_torch.Step):
  """Products that stand for an update and for a forward pass.

  Args:
    config: Config of the network whose operations are counted.
    batch: Result of `step_worker.random_batch`.
  """

  def __init__(self, config: ml_collections.ConfigDict, batch: dict):
    super().__init__(config, batch, mode='eager', fast_lrn=False)
    dtype = getattr(torch, config.model.dtype)
    self._squares = {}
    starts = {'train': super().train, 'evaluate': super().evaluate}
    for name, start in starts.items():
      # A product of n x n matrices takes n^3 multiplications and additions.
      side = round((_count_operations(start) / 2) ** (1 / 3))
      square = torch.randn(side, side, dtype=dtype, device=self._device)
      self._squares[name] = square

  def train(self) -> Callable[[], None]:
    """Starts a product of as many operations as an update."""
    return self._multiply('train')

  def evaluate(self) -> Callable[[], None]:
    """Starts a product of as many operations as a forward pass."""
    return self._multiply('evaluate')

  def _multiply(self, name: str) -> Callable[[], None]:
    torch.mm(self._squares[name], self._squares[name])
    return self._wait()


def _count_operations(start: Callable[[], Callable[[], None]]) -> int:
  """Returns the multiplications and additions of a step."""
  mapping = {torch.ops.aten.convolution_backward: _count_backward}
  counter = flop_counter.FlopCounterMode(display=False, custom_mapping=mapping)
  with counter:
    start()()
  return counter.get_total_flops()


def _count_backward(gradient, x, kernel, *others, **_) -> int:
  """Returns the operations of a convolution's gradients, from shapes.

  Each takes as many as the forward pass. PyTorch counts too many of a grouped
  convolution's.
  """
  wanted = others[-1]  # whether gradients of inputs, kernels, biases are
  forward = flop_counter.conv_flop_count(x, kernel, gradient)
  return forward * sum(wanted[:2])


if __name__ == '__main__':
  step_worker.serve(Step)
