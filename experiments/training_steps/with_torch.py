"""The step in PyTorch, in its usual modes."""

from collections.abc import Callable

import ml_collections
import numpy as np
import torch
from torch.nn import functional

from experiments.training_steps import torch_network


class Step:
  """A network's training step and forward pass on one batch."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    batch: dict,
    mode: str,
    fast_lrn: bool = False,
  ):
    """Builds a network; the first calls compile it, if at all.

    Args:
      config: of a run; `model.dtype` chooses autocast.
      batch: 'image' [N, H, W, 3] and 'label' [N].
      mode: 'eager', 'channels_last', 'compile' (channels last as well) or
        'CUDA graphs' (the same, replayed as a whole).
      fast_lrn: see `torch_network.build`.
    """
    torch.manual_seed(config.seed)
    # TF32 and a search for the fastest kernels, as JAX has them by default.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    order = torch.contiguous_format
    if mode != 'eager':
      order = torch.channels_last
    self._network = torch_network.build(config, fast_lrn)
    self._network.to(self._device, memory_format=order)
    self._apply = self._network
    if mode == 'compile':
      self._apply = torch.compile(self._network)
    elif mode == 'CUDA graphs':
      self._apply = torch.compile(self._network, mode='reduce-overhead')
    images = np.ascontiguousarray(batch['image'].transpose(0, 3, 1, 2))
    images = torch.from_numpy(images).to(self._device)
    self._images = images.contiguous(memory_format=order)
    labels = torch.from_numpy(batch['label'].astype(np.int64))
    self._labels = labels.to(self._device)
    self._bfloat16 = config.model.dtype == 'bfloat16'
    self._optimizer = torch.optim.SGD(
      self._network.parameters(),
      lr=config.optimizer.learning_rate,
      momentum=config.optimizer.momentum,
      weight_decay=config.optimizer.weight_decay,
      fused=True,
    )

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    self._network.train()
    self._optimizer.zero_grad()
    loss = functional.cross_entropy(self._logits(), self._labels)
    loss.backward()
    self._optimizer.step()
    return self._wait()

  @torch.inference_mode()
  def evaluate(self) -> Callable[[], None]:
    """Starts one forward pass."""
    self._network.eval()
    self._logits()
    return self._wait()

  @property
  def is_on_cpu(self) -> bool:
    """Whether there is no accelerator."""
    return self._device == 'cpu'

  def peak_memory(self) -> int:
    """The most bytes of the accelerator's memory in use so far."""
    return torch.cuda.max_memory_allocated()

  def _wait(self) -> Callable[[], None]:
    if self.is_on_cpu:  # where all is done at once
      return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize

  def _logits(self) -> torch.Tensor:
    with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
      return self._apply(self._images.float() - 120).float()
