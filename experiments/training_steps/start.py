"""From the start of a process to the end of its first training step.

    python -m experiments.training_steps.start JOB

Prints one line of JSON: seconds of each stage, as in `train_and_evaluate`.
"""

import json
import sys
import time

import jax
import ml_collections
import tensorflow as tf

from alexnet_jax import (
  compilation_cache,
  durations,
  parallel,
  train_state,
  train_step,
)
from alexnet_jax.data import pipeline, prepare, preprocessing


class _Stages:
  """Seconds between calls."""

  def __init__(self, start: float):
    self.seconds = {}
    self._last = start

  def end(self, stage: str) -> None:
    now = time.time()
    self.seconds[stage] = now - self._last
    self._last = now


def _first_step(config: ml_collections.ConfigDict, stages: _Stages) -> None:
  tf.config.set_visible_devices([], 'GPU')
  compilation_cache.enable()
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  prepared = prepare.open_or_prepare(config.data)
  steps = durations.count_steps(config, prepared.num_examples('train'))
  process = preprocessing.from_statistics(prepared, config.data)
  stages.end('open data')
  program = train_step.create_program(config, plan, process, steps)
  state = train_state.create_train_state(config)
  state = program.put_state(state)
  stages.end('create state')
  batches = pipeline.train_batches(
    prepared,
    config.data,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=0,
    end_step=steps.total,
    share=plan.share(config.batch_size),
  )
  batch = plan.put_batch(next(batches))
  stages.end('first batch')
  run_step = program.compile()
  state, sums = run_step(state, batch)
  jax.block_until_ready(sums)
  stages.end('trace, compile, first step')
  _, sums = run_step(state, batch)
  jax.block_until_ready(sums)
  stages.end('second step')


def main() -> None:
  """Measures once."""
  job = json.loads(sys.argv[1])
  stages = _Stages(job['started'])
  stages.end('start Python, import')
  _first_step(ml_collections.ConfigDict(job['config']), stages)
  print(json.dumps(stages.seconds))


if __name__ == '__main__':
  main()
