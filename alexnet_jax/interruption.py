"""SIGTERM and SIGINT end a run where its state is whole."""

import signal
import threading

import jax
from jax.experimental import multihost_utils

from alexnet_jax import errors

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
  """Notes the first signal, for the loop to ask; a second one acts at once.

  Outside of the main thread, where Python has no handlers, it notes nothing.
  Python notices a signal only between its own operations: not while a step is
  compiled. Several processes must stop at one step: JAX listens to SIGTERM for
  all of them, at the next step, and SIGINT acts at once.
  """

  def __init__(self):
    self._number = None
    self._before = {}

  def __enter__(self) -> 'Interruption':
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and jax.process_count() == 1:
      self._before = {n: signal.signal(n, self._note) for n in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    """Gives the signals back to who had them."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: object) -> None:
    self._number = number
    for each in SIGNALS:
      signal.signal(each, signal.SIG_DFL)

  def check_step(self, step: int) -> None:
    """As `check`, after each step, at the same one for all processes."""
    if jax.process_count() == 1:
      self.check()
    elif multihost_utils.reached_preemption_sync_point(step):
      raise errors.Interrupted(signal.SIGTERM)

  def check(self) -> None:
    """Returns if there was no signal.

    Raises:
      Interrupted: otherwise.
    """
    if self._number is not None:
      raise errors.Interrupted(self._number)
