r"""The paper's table of errors, for any runs and for all of them together.

    python -m experiments.error_table --workdirs=runs/a,runs/b@9000 --views=10

Each run evaluates its newest checkpoint, or the one after the @. Where several
are given, a last row averages their probabilities, as the paper's "5 CNNs" and
"7 CNNs" did (section 6). Every example of the split counts once.

Writes to the directory --output (errors/ by default): results.md, the table,
with the classes that the last row errs most on; results.json, the same with
every class's error; and confusion.npz, for each row an array [classes, classes]
of how often a label (first axis) was taken for a class.
"""

import json
import os
import pathlib

# Before TensorFlow starts: it only reads images here, and need not say so.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
import tqdm
from absl import app, flags, logging

from alexnet_jax import (
  command_line,
  compilation_cache,
  errors,
  evaluate,
  metrics,
  parallel,
  trained,
)
from alexnet_jax.data import records
from experiments import network_flags

_WORKDIRS = flags.DEFINE_list('workdirs', [], 'Runs, each DIR or DIR@STEP.')
_SPLIT = flags.DEFINE_enum(
  'split', 'validation', ['train', 'validation'], 'What to evaluate on.'
)
_DEFAULT_OUTPUT = 'errors/'
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

  def summary(self, class_names: list[str]) -> dict[str, object]:
    """Means over all examples, and each class's top-1 error."""
    counts = self.confusion.sum(axis=1)
    hits = self.confusion.diagonal()
    per_class = {
      name: 1 - hit / count if count else None
      for name, hit, count in zip(
        class_names, hits.tolist(), counts.tolist(), strict=True
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
  directory, *_ = workdir.partition('@')
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
  lines = [
    '| Model | Top-1 | Top-5 |',
    '|---|---:|---:|',
    *(
      f'| {name} | {100 * row["top1_error"]:.1f}% | '
      f'{100 * row["top5_error"]:.1f}% |'
      for name, row in rows.items()
    ),
  ]
  (*_, (name, last)) = rows.items()
  by_class = {k: v for k, v in last['top1_error_by_class'].items() if v}
  worst = sorted(by_class.items(), key=lambda pair: -pair[1])[:_WORST]
  listed = ', '.join(f'{k} ({100 * v:.1f}%)' for k, v in worst) or 'none'
  count = 'view' if views == '1' else 'views'
  return '\n'.join(
    [
      *lines,
      '',
      f'{last["examples"]:,} examples of {split}, {views} {count}. {name} errs '
      f'most often on: {listed}.',
      '',
    ]
  )


def _write(
  output: pathlib.Path, tallies: dict[str, Tally], classes: list[str]
) -> str:
  rows = {name: tally.summary(classes) for name, tally in tallies.items()}
  output.mkdir(parents=True, exist_ok=True)
  about = {'views': int(network_flags.VIEWS.value), 'split': _SPLIT.value}
  results = json.dumps(about | {'models': rows}, indent=2) + '\n'
  (output / 'results.json').write_text(results)
  confusion = {name: tally.confusion for name, tally in tallies.items()}
  np.savez_compressed(output / 'confusion.npz', **confusion)
  text = markdown(rows, network_flags.VIEWS.value, _SPLIT.value)
  (output / 'results.md').write_text(text)
  return text


def _overrides() -> dict[str, object]:
  return network_flags.data_overrides() | {
    'eval.views': int(network_flags.VIEWS.value),
    'eval.split': _SPLIT.value,
  }


def main(argv: list[str]) -> None:
  """Does what the flags say."""
  tf.config.set_visible_devices([], 'GPU')
  logging.set_verbosity(logging.WARNING)
  with command_line.one_sentence():
    if len(argv) > 1 or not _WORKDIRS.value:
      raise errors.UserError(
        'give the runs as --workdirs=DIR,DIR@STEP,... and nothing else.'
      )
    compilation_cache.enable()
    runs = [load(workdir, _overrides()) for workdir in _WORKDIRS.value]
    tallies = measure(runs, network_flags.BATCH_SIZE.value)
    output = pathlib.Path(network_flags.OUTPUT.value or _DEFAULT_OUTPUT)
    print(_write(output, tallies, runs[0][1].class_names))


if __name__ == '__main__':
  app.run(main)
