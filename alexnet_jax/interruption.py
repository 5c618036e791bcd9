"""SIGTERM and SIGINT end a run where its state is whole."""

import signal
import threading

from alexnet_jax import errors

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
  """Notes the first signal, for the loop to ask; a second one acts at once.

  Outside of the main thread, where Python has no handlers, it notes nothing.
  """

  def __init__(self):
    self._number = None
    self._before = {}

  def __enter__(self) -> 'Interruption':
    if threading.current_thread() is threading.main_thread():
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

  def check(self) -> None:
    """Returns if there was no signal.

    Raises:
      Interrupted: otherwise.
    """
    if self._number is not None:
      raise errors.Interrupted(self._number)
