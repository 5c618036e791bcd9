"""Progress, speed and waiting time of the training loop, and a trace of it."""

import collections
import concurrent.futures
import contextlib
import pathlib
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import tqdm

from alexnet_jax import multihost

Batch = TypeVar('Batch')

# Unbounded dispatch of collectives can stall virtual CPU devices.
_STEPS_IN_FLIGHT = 2
_SECONDS_BETWEEN_LINES = 60
# The first steps of a start say little: one compiles, queues fill.
_WARM_UP = 5


class Meter:
  """Watches the steps of a run, as a context.

  On a terminal it shows a progress bar, elsewhere one line a minute. A trace of
  some steps goes to `<workdir>/plugins/profile/<time>/`, for TensorBoard's
  profile plugin.

  Args:
    workdir: Directory of the run.
    batch_size: Examples of a step.
    first_step: Step that this start goes on from.
    last_step: Last step of the run.
    num_traced: Steps to trace, 0 for none. If the run ends sooner, all but the
      first step of this start are traced.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    batch_size: int,
    first_step: int,
    last_step: int,
    num_traced: int = 0,
  ):
    self._workdir, self._batch_size = workdir, batch_size
    self._last_step = last_step
    spare = last_step - first_step - num_traced
    self._trace_after = first_step + min(_WARM_UP, max(spare, 1))
    self._trace_until = min(self._trace_after + num_traced, last_step)
    self._is_trace_due = self._is_tracing = False
    self._in_flight = collections.deque()
    self._has_compiled = False
    self._estimate_after = first_step + 1 + _WARM_UP
    self._summary, self._last_line = '', time.perf_counter()
    self._bar = tqdm.tqdm(
      desc='compile',
      total=last_step,
      initial=first_step,
      unit='step',
      disable=not (multihost.is_primary() and sys.stderr.isatty()),
    )
    self.restart()

  def __enter__(self) -> 'Meter':
    # Its thread notes when each step ends.
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    return self

  def __exit__(self, *_) -> None:
    """Ends the trace and the progress bar, whatever has happened."""
    if self._is_tracing:
      self._stop_trace()
    self._bar.close()
    self._pool.shutdown()

  def restart(self) -> None:
    """Begins a logging window."""
    self._began, self._steps = time.perf_counter(), 0
    self._input_seconds = 0.0

  def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the batches and adds up how long devices had nothing to do."""
    iterator = iter(batches)
    while True:
      asked = time.perf_counter()
      try:
        batch = next(iterator)
      except StopIteration:
        return
      if self._in_flight and self._in_flight[-1].done():
        idle_since = max(asked, self._in_flight[-1].result())
        self._input_seconds += time.perf_counter() - idle_since
      if self._is_trace_due:
        self._start_trace()
      yield batch

  def count_and_wait(self, step: int, outputs: Any) -> None:
    """Counts a step that was dispatched, and waits for the one before it.

    Args:
      step: Number of the step.
      outputs: Arrays that the step returns.
    """
    self._in_flight.append(self._pool.submit(_wait, outputs))
    while len(self._in_flight) >= _STEPS_IN_FLIGHT:
      self._in_flight.popleft().result()
    self._steps += 1
    if not self._has_compiled:
      self._has_compiled, self._last_line = True, time.perf_counter()
      self._bar.set_description('train')
      self._trained_since = time.perf_counter()
      self.restart()
    self._trace(step, outputs)
    self._bar.update()
    if step == self._estimate_after:
      self._estimate(step)
    self._write_line(step)

  def describe(self, summary: str) -> None:
    """Shows the newest training metrics beside the progress."""
    self._summary = summary
    self._bar.set_postfix_str(summary)

  def _estimate(self, step: int) -> None:
    """Says once how long the run will take, by its first steps."""
    seconds = (time.perf_counter() - self._trained_since) / _WARM_UP
    left = self._last_step - step
    multihost.log(
      f'About {seconds * left / 60:.1f} minutes for {left:,} steps of '
      f'{seconds:.2g} s, without evaluations.'
    )

  def _write_line(self, step: int) -> None:
    now = time.perf_counter()
    if not self._bar.disable or now - self._last_line < _SECONDS_BETWEEN_LINES:
      return
    self._last_line = now
    rate = self._steps / (now - self._began)
    left = (self._last_step - step) / rate / 60 if rate else 0
    multihost.log(
      f'step {step:,} of {self._last_step:,}, {rate:.3g} steps/s, '
      f'{left:.0f} minutes left{self._summary and f"; {self._summary}"}'
    )

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves what happens inside out of the logging window."""
    began = time.perf_counter()
    yield
    self._began += time.perf_counter() - began

  def read(self) -> dict[str, float]:
    """Returns the window's seconds, images a second and seconds of waiting.

    Beside them is the most memory that this start has taken so far.
    """
    seconds = time.perf_counter() - self._began
    return {
      'seconds': seconds,
      'examples_per_second': self._steps * self._batch_size / seconds,
      'input_seconds': self._input_seconds,
      'peak_memory_bytes': _peak_memory(),
    }

  def _trace(self, step: int, outputs: Any) -> None:
    """Ends the trace after its last step, and asks for it before its first.

    It starts with the next batch, after an evaluation that may be due now.
    """
    if self._is_tracing and step == self._trace_until:
      jax.block_until_ready(outputs)
      with self.paused():
        self._stop_trace()
    if step == self._trace_after < self._trace_until:
      jax.block_until_ready(outputs)
      self._is_trace_due = True

  def _start_trace(self) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # frames would bury the steps
    with self.paused():
      jax.profiler.start_trace(self._workdir, profiler_options=options)
    self._is_trace_due, self._is_tracing = False, True

  def _stop_trace(self) -> None:
    self._is_tracing = False
    jax.profiler.stop_trace()


def _peak_memory() -> int:
  """Returns the most bytes so far, of the device or of a CPU's process."""
  if counters := jax.local_devices()[0].memory_stats():
    return counters['peak_bytes_in_use']
  return 2**10 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _wait(outputs: Any) -> float:
  """Returns the time at which arrays were ready."""
  jax.block_until_ready(outputs)
  return time.perf_counter()
