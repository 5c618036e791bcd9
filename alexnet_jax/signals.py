"""Signals that end a run between two steps, where its state is whole.

SIGTERM and SIGINT do, and so do SIGUSR1 and SIGUSR2, which `sbatch --signal`
sends before the time of a job is up.
"""

import signal
import threading

import jax
from jax.experimental import multihost_utils

from alexnet_jax import errors

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
SIGNALS = (signal.SIGTERM, signal.SIGINT, *_WARNINGS)


class Signals:
  """Notes the first signal for the loop to ask for; a second one acts at once.

  Used as a context. Python runs handlers only in the main thread and only
  between its own operations, so a signal waits while a step compiles. Several
  processes must stop at the same step: there JAX listens to SIGTERM for all of
  them, SIGUSR1 and SIGUSR2 count as SIGTERM, and SIGINT acts at once.
  """

  def __init__(self):
    self._number = None
    self._previous = {}

  def __enter__(self) -> 'Signals':
    if threading.current_thread() is threading.main_thread():
      handlers = (
        dict.fromkeys(SIGNALS, self._note)
        if jax.process_count() == 1
        else dict.fromkeys(_WARNINGS, _pass_on)
      )
      self._previous = {n: signal.signal(n, f) for n, f in handlers.items()}
    return self

  def __exit__(self, *_) -> None:
    """Puts the previous handlers back."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: object) -> None:
    self._number = number
    for each in SIGNALS:
      signal.signal(each, signal.SIG_DFL)

  def check_step(self, step: int) -> None:
    """Raises Interrupted after a signal, at the same step in all processes."""
    if jax.process_count() == 1:
      self.check()
    elif multihost_utils.reached_preemption_sync_point(step):
      raise errors.Interrupted(signal.SIGTERM)

  def check(self) -> None:
    """Raises Interrupted if this process has noted a signal."""
    if self._number is not None:
      raise errors.Interrupted(self._number)


def _pass_on(number: int, frame: object) -> None:
  signal.raise_signal(signal.SIGTERM)
