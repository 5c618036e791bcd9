"""A trace of some training steps, for TensorBoard's profile plugin."""

import pathlib
from typing import Any

import jax

from alexnet_jax import metrics_log

# What a start's first steps take says little: one compiles, queues fill.
_WARM_UP = 5


class Profiler:
  """Traces steps into `<workdir>/plugins/profile/<time>/`.

  Args:
    workdir: of the run, where the plugin looks beside the events.
    num_steps: how many steps to trace; 0 for none. Of a run that ends sooner,
      all but this start's first, which compiles.
    first_step: the step that this start goes on from.
    last_step: of the run.
  """

  def __init__(
    self, workdir: pathlib.Path, num_steps: int, first_step: int, last_step: int
  ):
    self._workdir = workdir
    spare = last_step - first_step - num_steps
    self._begin = first_step + min(_WARM_UP, max(spare, 1))
    self._end = min(self._begin + num_steps, last_step)
    self._is_tracing = False

  def __enter__(self) -> 'Profiler':
    return self

  def __exit__(self, *unused) -> None:
    if self._is_tracing:  # the run has ended early
      self._stop()

  def before(self, step: int, state: Any, clock: metrics_log.Clock) -> None:
    """Begins the trace where `step` is its first.

    Args:
      step: the number of the step that comes next.
      state: what the step before it leaves, which is waited for.
      clock: leaves this out.
    """
    if step == self._begin + 1 <= self._end:
      jax.block_until_ready(state)
      with clock.paused():
        self._start()

  def after(self, step: int, state: Any, clock: metrics_log.Clock) -> None:
    """Ends the trace where `step` is its last; see `before`."""
    if self._is_tracing and step == self._end:
      jax.block_until_ready(state)
      with clock.paused():
        self._stop()

  def _start(self) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # frames would bury the steps
    jax.profiler.start_trace(self._workdir, profiler_options=options)
    self._is_tracing = True

  def _stop(self) -> None:
    self._is_tracing = False
    jax.profiler.stop_trace()
