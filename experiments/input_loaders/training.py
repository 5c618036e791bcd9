"""A process that measures input and training step, alone and together.

    python -m experiments.input_loaders.training JOB

Input alone takes batches and puts them on the device; the step alone works on
one batch that stays there; both together is the loop of `train`.
"""

import collections
import itertools
from collections.abc import Iterator

import jax
import ml_collections
import tensorflow as tf

from alexnet_jax import durations, parallel, train_state, train_step
from alexnet_jax.data import pipeline, prepare, preprocessing
from experiments.benchmarking import worker
from experiments.input_loaders import contenders

# Batches that come before the clock starts.
_SKIP = 3
# As in train_and_evaluate.
_STEPS_IN_FLIGHT = 2


class Training:
  """A config's input and step."""

  def __init__(self, config: ml_collections.ConfigDict):
    """Puts a new network on the devices."""
    self._config = config
    self._prepared = prepare.open_or_prepare(config.data)
    self._plan = parallel.make_plan(config.model.towers, config.num_devices)
    parallel.check_batch_size(self._plan, config.batch_size)
    # As for the full set: on a small one, colour noise would soon be over.
    steps = durations.count_steps(config, contenders.EPOCH)
    process = preprocessing.from_statistics(self._prepared, config.data)
    program = train_step.create_program(config, self._plan, process, steps)
    self._run_step = program.compile()
    state = train_state.create_train_state(config)
    self._state = program.put_state(state)
    self._resident = next(self._inputs())

  def input_only(self, seconds: float) -> tuple[int, float]:
    """Batches on the device that nobody uses."""
    return self._timed(map(jax.block_until_ready, self._inputs()), seconds)

  def step_only(self, seconds: float) -> tuple[int, float]:
    """Steps on the same batch."""
    return self._timed(self._steps(itertools.repeat(self._resident)), seconds)

  def both(self, seconds: float) -> tuple[int, float]:
    """Steps on new batches."""
    return self._timed(self._steps(self._inputs()), seconds)

  def _timed(self, results: Iterator, seconds: float) -> tuple[int, float]:
    count, elapsed = worker.timed(results, seconds, _SKIP)
    return count * self._config.batch_size, elapsed

  def _inputs(self) -> Iterator:
    batches = pipeline.train_batches(
      self._prepared,
      self._config.data,
      seed=self._config.seed,
      batch_size=self._config.batch_size,
      start_step=0,
      end_step=2**31,
      share=self._plan.share(self._config.batch_size),
    )
    for batch in batches:
      yield self._plan.put_batch(batch)

  def _steps(self, batches: Iterator) -> Iterator:
    """Yields for each step that has ended, with others under way."""
    in_flight = collections.deque()
    for batch in batches:
      if len(in_flight) == _STEPS_IN_FLIGHT:
        yield jax.block_until_ready(in_flight.popleft())
      self._state, sums = self._run_step(self._state, batch)
      in_flight.append(sums)


def _create(job: dict) -> tuple[dict[str, worker.Measure], dict]:
  tf.config.set_visible_devices([], 'GPU')
  training = Training(ml_collections.ConfigDict(job))
  measures = {
    'input': training.input_only,
    'step': training.step_only,
    'both': training.both,
  }
  for measure in measures.values():
    measure(0.0)
  devices = [f'{d.platform} {d.device_kind}' for d in jax.devices()]
  return measures, {'devices': devices}


if __name__ == '__main__':
  worker.serve(_create)
