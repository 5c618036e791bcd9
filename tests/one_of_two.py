"""One of two processes that evaluate the tiny set together.

    python -m tests.one_of_two PROCESS PORT DATA_DIR

Prints what the evaluation found and this process's share of a training batch.
"""

import json
import sys

import jax

from alexnet_jax import evaluate, parallel, train_state
from alexnet_jax.data import pipeline, preprocessing, records
from tests import tiny


def _evaluate(config, plan, prepared) -> dict:
  process = preprocessing.from_statistics(prepared, config.data)
  state = train_state.create_train_state(config)
  tower_wise = train_state.tower_wise(config, state)
  params = plan.put_state(state.params, tower_wise.params)
  evaluator = evaluate.create_evaluator(config, plan, process)
  return evaluator(params, prepared, 'validation')[0]


def _own_examples(config, plan, prepared) -> list[int]:
  """Places in the run of this process's examples of batch 3."""
  batches = pipeline.train_batches(
    prepared,
    config.data,
    seed=0,
    batch_size=config.batch_size,
    start_step=3,
    end_step=4,
    share=plan.share(config.batch_size),
  )
  return next(batches)['index'].tolist()


def main(process: int, port: str, data_dir: str) -> None:
  """Joins the other process, and prints one line of JSON."""
  jax.config.update('jax_num_cpu_devices', 2)
  jax.distributed.initialize(f'localhost:{port}', 2, process)
  config = tiny.get_config(data_dir)
  prepared = records.open_prepared(data_dir, 'tiny')
  plan = parallel.make_plan(config.model.towers, 0)
  values = _evaluate(config, plan, prepared)
  index = _own_examples(config, plan, prepared)
  print(json.dumps({'values': values, 'index': index}))


if __name__ == '__main__':
  main(int(sys.argv[1]), *sys.argv[2:])
