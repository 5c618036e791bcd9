"""Exact evaluation: every example of a split once, on any device count."""

import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging

from alexnet_jax import atomic, errors, metrics, multihost, paths, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.run import Run
from alexnet_jax.workdir import metrics_file

Tree = Any


def evaluate(
  run: Run,
  variables: Tree,
  data: records.PreparedSet,
  split: str,
  check: Callable[[], None] = lambda: None,
) -> tuple[metrics.Sums, dict[str, float]]:
  """Returns the sums over a split, and the time that they took.

  Args:
    run: Run whose `eval_step` is used.
    variables: Parameters and running moments on the devices.
    data: Prepared set to read.
    split: 'train' or 'validation'.
    check: Function that is called before every batch and may raise.

  Returns:
    What `train_step.eval_step` sums up, in float64, with the exact count
    'examples'; and 'seconds' and 'examples_per_second'.
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
  totals = {}
  for batch in _progress(batches, -(-count // batch_size), split):
    check()
    sums = run.plan.get(run.eval_step(variables, run.plan.put_batch(batch)))
    sums = jax.tree.map(np.float64, sums)
    totals = {name: totals.get(name, 0) + sums[name] for name in sums}
  seconds = time.perf_counter() - began
  timing = {'seconds': seconds, 'examples_per_second': count / seconds}
  return totals, timing


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

  The result is also a line of the workdir's evaluations.jsonl, with the data's
  name and the error of each class.

  Args:
    config: Config of the run, see `files.evaluation_config`.
    workdir: Absolute path of the run.

  Returns:
    'step', 'examples', 'views', 'loss', 'top1_error', 'top5_error'.

  Raises:
    UserError: If checkpoint, data and devices do not fit the config.
  """
  network = trained.restore(config, workdir)
  data = network.open_data()
  totals, _ = evaluate(network.run, network.variables, data, config.eval.split)
  values = metrics.means(totals)
  result = {
    'step': network.step,
    'examples': values.pop('examples'),
    'views': config.eval.views,
    **values,
  }
  if multihost.is_primary():
    _record(network, result, totals)
  return result


def _record(
  network: trained.TrainedRun, result: dict, totals: metrics.Sums
) -> None:
  """Writes a line of evaluations.jsonl, in place of one of the same kind.

  Networks that ship with the package are only read.
  """
  counts = zip(totals['class_examples'], totals['class_errors'], strict=True)
  of_classes = dict(zip(network.class_names, counts, strict=True))
  absent = [name for name, (count, _) in of_classes.items() if not count]
  if absent:
    multihost.log(
      f"{len(absent)} of the network's {len(of_classes)} classes are not in "
      f'the data: {errors.listed(absent)}.'
    )
  if paths.is_shipped(network.workdir):
    return
  data = {'data': network.config.data.name, 'split': network.config.eval.split}
  rates = {name: wrong / n for name, (n, wrong) in of_classes.items() if n}
  row = {**result, **data, 'top1_error_of_class': rates}
  path, kind = network.workdir / 'evaluations.jsonl', ('step', 'views', *data)
  try:
    rows = [
      old
      for old in metrics_file.parse(path)
      if any(old.get(name) != row[name] for name in kind)
    ]
    atomic.write_text(path, metrics_file.dump([*rows, row]))
    multihost.log(f'The error of each class of {data["data"]}: {path}')
  except (OSError, errors.UserError) as error:
    logging.warning('The result is printed only: %s', error)


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
