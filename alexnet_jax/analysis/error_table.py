"""Errors of trained networks, one by one and of all together.

The paper's table (section 6), with each class's error and confusion matrices.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from alexnet_jax import errors, evaluate, metrics, parallel, tables, trained
from alexnet_jax.data import class_names, records

# How many of the worst classes the table names.
_WORST = 10


class Tally:
  """Counts of one row of the table.

  Attributes:
    confusion: [classes, classes], how often a label was taken for a class.
  """

  def __init__(self, num_classes: int):
    self.confusion = np.zeros((num_classes, num_classes), np.int64)
    self._sums = dict.fromkeys(metrics.NAMES, 0.0)

  def add(self, labels: np.ndarray, log_probs: np.ndarray) -> None:
    """Counts a batch: labels [b] and log-probabilities [b, classes]."""
    np.add.at(self.confusion, (labels, log_probs.argmax(axis=1)), 1)
    values = jax.device_get(metrics.per_example(log_probs, labels))
    for name, value in values.items():
      self._sums[name] += value.sum(dtype=np.float64)
    self._sums['examples'] += len(labels)

  def summary(self, classes: list[str]) -> dict[str, object]:
    """Means over all examples, and each class's top-1 error."""
    counts = self.confusion.sum(axis=1)
    hits = self.confusion.diagonal()
    per_class = {
      name: 1 - hit / count if count else None
      for name, hit, count in zip(
        classes, hits.tolist(), counts.tolist(), strict=True
      )
    }
    return metrics.means(self._sums) | {'top1_error_by_class': per_class}


# A name, the network, its data.
Run = tuple[str, trained.Trained, records.PreparedSet]


def load(workdir: str, overrides: dict[str, object]) -> Run:
  """A run by DIR or DIR@STEP.

  Args:
    workdir: which.
    overrides: fields of its config, see `workdir.evaluation_config`.

  Raises:
    UserError: where there is no such run, checkpoint or data.
  """
  run = trained.load(workdir, overrides)
  directory, _ = trained.split_name(workdir)
  return f'{directory}, step {run.step}', run, run.open_data()


def measure(runs: list[Run], batch_size: int) -> dict[str, Tally]:
  """Evaluates runs, and their mean where there are several.

  Args:
    runs: see `load`.
    batch_size: examples at a time.

  Returns:
    A tally for each row of the table, by name.

  Raises:
    UserError: where runs differ in classes or examples, one is given twice, or
      batches do not divide among the devices.
  """
  names = [name for name, *_ in runs]
  for name, run, _ in runs:
    parallel.check_batch_size(run.plan, batch_size)
    if names.count(name) > 1:
      raise errors.UserError(f'--workdirs names {name} twice; once is enough.')
  classes = _common_classes(runs)
  tallies = {name: Tally(len(classes)) for name in names}
  together = f'{len(runs)} networks'
  if len(runs) > 1:
    tallies[together] = Tally(len(classes))
  streams = [
    evaluate.predictions(run, prepared, batch_size) for _, run, prepared in runs
  ]
  for batch in _in_step(streams, _count_batches(runs, batch_size)):
    labels = _common_labels([labels for labels, _ in batch])
    members = [log_probs for _, log_probs in batch]
    for name, log_probs in zip(names, members, strict=True):
      tallies[name].add(labels, log_probs)
    if len(runs) > 1:
      mean = evaluate.log_mean_exp(jnp.stack(members))
      tallies[together].add(labels, np.asarray(mean))
  return tallies


def _in_step(streams: list, total: int):
  return tqdm.tqdm(zip(*streams, strict=True), total=total, unit='batch')


def _count_batches(runs: list[Run], batch_size: int) -> int:
  _, run, prepared = runs[0]
  return -(-prepared.num_examples(run.config.eval.split) // batch_size)


def _common_classes(runs: list[Run]) -> list[str]:
  name, first, _ = runs[0]
  for other_name, other, _ in runs:
    if other.class_names != first.class_names:
      raise errors.UserError(
        f'{other_name} and {name} were trained on different classes; evaluate '
        'them apart.'
      )
  return first.class_names


def _common_labels(labels: list[np.ndarray]) -> np.ndarray:
  for other in labels[1:]:
    if not np.array_equal(other, labels[0]):
      raise errors.UserError(
        'the runs have different examples or orders; give them one --data_dir.'
      )
  return labels[0]


def markdown(rows: dict[str, dict], views: str, split: str) -> str:
  """The paper's table, and the classes that the last row errs most on."""
  cells = [
    (name, *(f'{100 * row[f"top{k}_error"]:.1f}%' for k in (1, 5)))
    for name, row in rows.items()
  ]
  (*_, (name, last)) = rows.items()
  by_class = {k: v for k, v in last['top1_error_by_class'].items() if v}
  worst = sorted(by_class.items(), key=lambda pair: -pair[1])[:_WORST]
  names = class_names.readable([name for name, _ in worst])
  listed = ', '.join(
    f'{name} ({100 * error:.1f}%)'
    for name, (_, error) in zip(names, worst, strict=True)
  )
  count = 'view' if views == '1' else 'views'
  return '\n'.join(
    [
      tables.markdown(('Model', 'Top-1', 'Top-5'), cells),
      '',
      f'{last["examples"]:,} examples of {split}, {views} {count}. {name} errs '
      f'most often on: {listed or "none"}.',
      '',
    ]
  )
