"""Exact evaluation: every example of a split once, on any device count."""

import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np
import tqdm

from alexnet_jax import metrics, multihost, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.run import Run

Tree = Any


def evaluate(
  run: Run,
  variables: Tree,
  data: records.PreparedSet,
  split: str,
  check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float | int], dict[str, float]]:
  """Returns the means over a split, and the time that they took.

  Args:
    run: Run whose `eval_step` is used.
    variables: Parameters and running moments on the devices.
    data: Prepared set to read.
    split: 'train' or 'validation'.
    check: Function that is called before every batch and may raise.

  Returns:
    'loss', 'top1_error', 'top5_error' and the exact count 'examples'; and
    'seconds' and 'examples_per_second'.
  """
  began = time.perf_counter()
  # The last batch is padded anyway, so that any size will do: as many examples
  # as training has in memory at a time.
  shards, parts = run.plan.num_data_shards, run.config.accumulate_steps
  batch_size = -(-run.config.batch_size // (shards * parts)) * shards
  batches = pipeline.eval_batches(
    data,
    split,
    batch_size,
    share=run.plan.share(batch_size),
    workers=run.config.data.workers,
  )
  count = data.num_examples(split)
  totals = dict.fromkeys(metrics.NAMES, np.float64(0))
  for batch in _progress(batches, -(-count // batch_size), split):
    check()
    sums = run.plan.get(run.eval_step(variables, run.plan.put_batch(batch)))
    totals = {name: totals[name] + sums[name] for name in totals}
  seconds = time.perf_counter() - began
  timing = {'seconds': seconds, 'examples_per_second': count / seconds}
  return metrics.means(totals), timing


def _progress(batches: Iterable, total: int, split: str) -> tqdm.tqdm:
  return tqdm.tqdm(
    batches,
    total=total,
    desc=f'evaluate {split}',
    unit='batch',
    leave=False,
    disable=not (multihost.is_primary() and sys.stderr.isatty()),
  )


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float | int]:
  """Evaluates a checkpoint of a run.

  Args:
    config: Config of the run, see `files.evaluation_config`.
    workdir: Absolute path of the run.

  Returns:
    'step', 'examples', 'views', 'loss', 'top1_error', 'top5_error'.

  Raises:
    UserError: If checkpoint, data and devices do not fit the config.
  """
  network = trained.restore(config, workdir)
  values, _ = evaluate(
    network.run, network.variables, network.open_data(), config.eval.split
  )
  return {
    'step': network.step,
    'examples': values.pop('examples'),
    'views': config.eval.views,
    **values,
  }


def predictions(
  network: trained.TrainedRun, data: records.PreparedSet, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields class probabilities of every example of `config.eval.split`.

  Args:
    network: Trained network; `eval.views` of its config are averaged.
    data: Prepared set to read.
    batch_size: Examples at a time.

  Yields:
    Labels [b] and natural logarithms of probabilities [b, classes], in order;
    the last batch is shorter.
  """
  config = network.config
  predictor = trained.create_predictor(network, batch_size)
  batches = pipeline.eval_batches(
    data,
    config.eval.split,
    batch_size,
    share=network.plan.share(batch_size),
    workers=config.data.workers,
  )
  for batch in batches:
    counts = batch['mask'] > 0
    yield batch['label'][counts], predictor(batch['image'])[counts]
