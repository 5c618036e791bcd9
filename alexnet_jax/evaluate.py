"""Exact evaluation: every example of a split once, on any device count."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from alexnet_jax import checkpoint, metrics, parallel, validate
from alexnet_jax import workdir as workdir_lib
from alexnet_jax.data import augment, pipeline, prepare, preprocessing, records
from alexnet_jax.models import AlexNet
from alexnet_jax.train_state import (
  abstract_train_state,
  create_model,
  tower_wise,
)


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Evaluates parameters on a split.

  Attributes:
    plan: how the work is spread.
    step: the compiled `eval_step`, of (params, batch).
    batch_size: examples of a global batch.
    workers: threads that read; 0 for one a core.
  """

  plan: parallel.Plan
  step: Callable[..., metrics.Sums]
  batch_size: int
  workers: int

  def __call__(
    self, params, prepared: records.PreparedSet, split: str
  ) -> tuple[dict[str, float | int], dict[str, float]]:
    """Means over the split.

    Args:
      params: on the devices, as the plan has put them.
      prepared: the data.
      split: 'train' or 'validation'.

    Returns:
      'loss', 'top1_error', 'top5_error' and the exact count 'examples'; and
      the time it took.
    """
    began = time.perf_counter()
    batches = pipeline.eval_batches(
      prepared,
      split,
      self.batch_size,
      share=self.plan.share(self.batch_size),
      workers=self.workers,
    )
    count = prepared.num_examples(split)
    totals = dict.fromkeys(metrics.NAMES, np.float64(0))
    for batch in _progress(batches, -(-count // self.batch_size), split):
      sums = self.plan.get(self.step(params, self.plan.put_batch(batch)))
      totals = {name: totals[name] + sums[name] for name in totals}
    seconds = time.perf_counter() - began
    timing = {'seconds': seconds, 'examples_per_second': count / seconds}
    return metrics.means(totals), timing


def create_evaluator(
  config: ml_collections.ConfigDict,
  plan: parallel.Plan,
  process: preprocessing.Preprocessing,
) -> Evaluator:
  """An evaluator with the config's network, batch size and views."""
  model = create_model(config, plan.towers)
  step = functools.partial(eval_step, model, process, plan, config.eval.views)
  compiled = plan.compile(
    step, deterministic=config.deterministic, donate=False
  )
  # The last batch is padded anyway, so any size will do.
  batch_size = -(-config.batch_size // plan.num_slices) * plan.num_slices
  return Evaluator(plan, compiled, batch_size, config.data.workers)


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, float | int]:
  """Evaluates a checkpoint of a run.

  Args:
    config: the run's, see `workdir.evaluation_config`.
    workdir: absolute path of the run.

  Returns:
    'step', 'examples', 'views', 'loss', 'top1_error', 'top5_error'.

  Raises:
    UserError: where checkpoint, data and devices do not fit the config.
  """
  validate.check_config(config)
  plan = parallel.make_plan(config.model.towers, config.num_devices)
  process = preprocessing.load(workdir / 'preprocessing.npz')
  with checkpoint.Checkpointer(workdir) as checkpointer:
    like = abstract_train_state(config)
    state, extra = checkpointer.restore(config.eval.step, like)
  process.check_digest(extra['preprocessing'])
  prepared = prepare.open_or_prepare(config.data)
  workdir_lib.check_class_names(workdir, prepared)
  params = plan.put_state(state.params, tower_wise(config, state).params)
  evaluator = create_evaluator(config, plan, process)
  values, _ = evaluator(params, prepared, config.eval.split)
  return {
    'step': int(state.step),
    'examples': values.pop('examples'),
    'views': config.eval.views,
    **values,
  }


def _progress(batches: Iterable, total: int, split: str) -> tqdm.tqdm:
  return tqdm.tqdm(
    batches, total=total, desc=f'evaluate {split}', unit='batch', leave=False
  )


def eval_step(
  model: AlexNet,
  process: preprocessing.Preprocessing,
  plan: parallel.Plan,
  num_views: int,
  params,
  batch: pipeline.Batch,
) -> dict[str, jax.Array]:
  """The per-device program: sums of metrics over the global batch."""
  crop_size = int(process.crop_size)
  log_probs = [
    jax.nn.log_softmax(model.apply({'params': params}, process(view)))
    for view in augment.views(batch['image'], crop_size, num_views)
  ]
  # The mean of probabilities, in logarithms.
  averaged = jax.nn.logsumexp(jnp.stack(log_probs), axis=0) - jnp.log(num_views)
  sums = metrics.sums(averaged, batch['label'], batch['mask'])
  return plan.sum_slices(sums)
