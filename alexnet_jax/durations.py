"""How long a run is, and what is due when."""

import dataclasses
import functools
from collections.abc import Callable

import ml_collections

from alexnet_jax import optim


@dataclasses.dataclass(frozen=True)
class Steps:
  """A run's durations in steps.

  Attributes:
    total: updates of the whole run.
    every: how many lie between two logs, evaluations and checkpoints; with 0
      they happen at the end only.
    of_epoch: turns a number of epochs into steps.
  """

  total: int
  every: dict[str, int]
  of_epoch: Callable[[float], int]

  def due(self, step: int) -> dict[str, bool]:
    """What is to be done after `step`: all of it after the last."""
    return {
      what: step == self.total or (every > 0 and step % every == 0)
      for what, every in self.every.items()
    }


def count_steps(config: ml_collections.ConfigDict, num_examples: int) -> Steps:
  """Turns epochs into steps, once; a step value > 0 overrides its epochs."""
  of_epoch = functools.partial(
    optim.epochs_to_steps,
    num_examples=num_examples,
    batch_size=config.batch_size,
  )

  def every(what: str) -> int:
    epochs = config[f'{what}_every_epochs']
    return config[f'{what}_every_steps'] or of_epoch(epochs)

  return Steps(
    total=config.train_steps or of_epoch(config.num_epochs),
    every={what: every(what) for what in ('log', 'eval', 'checkpoint')},
    of_epoch=of_epoch,
  )
