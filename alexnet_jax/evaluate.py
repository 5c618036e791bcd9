"""Exact evaluation: every example of a split once, on any device count."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from alexnet_jax import hosts, metrics, parallel, trained
from alexnet_jax.data import augment, pipeline, preprocessing, records
from alexnet_jax.models import AlexNet
from alexnet_jax.train_state import create_model


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
    self,
    params,
    prepared: records.PreparedSet,
    split: str,
    check: Callable[[], None] = lambda: None,
  ) -> tuple[dict[str, float | int], dict[str, float]]:
    """Means over the split.

    Args:
      params: on the devices, as the plan has put them.
      prepared: the data.
      split: 'train' or 'validation'.
      check: called before every batch; may raise.

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
      check()
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
  run = trained.restore(config, workdir)
  evaluator = create_evaluator(config, run.plan, run.process)
  values, _ = evaluator(run.params, run.open_data(), config.eval.split)
  return {
    'step': run.step,
    'examples': values.pop('examples'),
    'views': config.eval.views,
    **values,
  }


def predictions(
  run: trained.Trained, prepared: records.PreparedSet, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Class probabilities of every example of `config.eval.split`, in order.

  Args:
    run: the network; its config's `eval.views` are averaged.
    prepared: the data.
    batch_size: examples at a time.

  Yields:
    Labels [b] and natural logarithms of probabilities [b, classes]; the last
    batch is shorter.
  """
  config, predictor = run.config, create_predictor(run)
  batches = pipeline.eval_batches(
    prepared,
    config.eval.split,
    batch_size,
    share=run.plan.share(batch_size),
    workers=config.data.workers,
  )
  for batch in batches:
    counts = batch['mask'] > 0
    yield batch['label'][counts], predictor(batch['image'])[counts]


def create_predictor(
  run: trained.Trained,
) -> Callable[[np.ndarray], np.ndarray]:
  """A function of whole images [N, S, S, 3], uint8, always as many.

  It returns natural logarithms of probabilities [N, classes], averaged over
  `config.eval.views`. N is a multiple of the plan's slices.
  """
  config, plan = run.config, run.plan
  model = create_model(config, plan.towers)
  compiled = plan.compile(
    functools.partial(predict, model, run.process, config.eval.views),
    deterministic=config.deterministic,
    donate=False,
  )

  def predictor(images: np.ndarray) -> np.ndarray:
    return plan.get_batch(compiled(run.params, plan.put_batch(images)))

  return predictor


def _progress(batches: Iterable, total: int, split: str) -> tqdm.tqdm:
  return tqdm.tqdm(
    batches,
    total=total,
    desc=f'evaluate {split}',
    unit='batch',
    leave=False,
    disable=not hosts.is_first(),
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
  averaged = predict(model, process, num_views, params, batch['image'])
  sums = metrics.sums(averaged, batch['label'], batch['mask'])
  return plan.sum_slices(sums)


def predict(
  model: AlexNet,
  process: preprocessing.Preprocessing,
  num_views: int,
  params,
  images: jax.Array,
) -> jax.Array:
  """Class probabilities of whole images, averaged over views.

  Args:
    model: the network.
    process: of the run.
    num_views: 1, or 10 (paper section 4.1).
    params: of the network.
    images: [N, S, S, 3] of uint8.

  Returns:
    [N, classes], natural logarithms.
  """
  crop_size = int(process.crop_size)
  log_probs = [
    jax.nn.log_softmax(model.apply({'params': params}, process(view)))
    for view in augment.views(images, crop_size, num_views)
  ]
  return log_mean_exp(jnp.stack(log_probs))


def log_mean_exp(log_probs: jax.Array) -> jax.Array:
  """The mean of probabilities over the first axis, in logarithms."""
  return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(log_probs))
