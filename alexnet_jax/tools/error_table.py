r"""Prints the paper's table of errors for runs and for their average.

    python -m alexnet_jax.tools.error_table \
        --workdirs=runs/a,runs/b@9000 --views=10

Each run is evaluated at its newest checkpoint, or at the step after the @. For
several runs, a last row averages their probabilities, as the paper's "5 CNNs"
and "7 CNNs" did (section 6). Every example of the split counts once.

Three files are written to the directory --output:

results.md      the table, and the classes with the most errors in the last row
results.json    the same, with the error of every class
confusion.npz   for each row an array [classes, classes]: how often a label
                (first axis) was taken for a class
"""

import json
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags

from alexnet_jax import (
  command_line,
  errors,
  evaluate,
  metrics,
  parallel,
  paths,
  train_step,
  trained,
)
from alexnet_jax.data import ilsvrc
from alexnet_jax.tools import flags as tool_flags
from alexnet_jax.tools import tables

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
    """Returns means over all examples, and the top-1 error of each class."""
    counts = self.confusion.sum(axis=1).tolist()
    hits = self.confusion.diagonal().tolist()
    by_class = {
      name: 1 - hit / count if count else None
      for name, hit, count in zip(classes, hits, counts, strict=True)
    }
    return metrics.means(self._sums) | {'top1_error_by_class': by_class}


def load_runs(
  workdirs: list[str], overrides: dict[str, object]
) -> dict[str, trained.TrainedRun]:
  """Restores runs and names each by its directory and step.

  Args:
    workdirs: Runs, each DIR, DIR@STEP or DIR@best.
    overrides: Fields of their configs, see `files.evaluation_config`.

  Raises:
    UserError: If there is no such run, or one is given twice.
  """
  runs = {}
  for workdir in workdirs:
    run = trained.load(workdir, overrides)
    name = f'{trained.split_name(workdir)[0]}, step {run.step}'
    if name in runs:
      raise errors.UserError(f'--workdirs names {name} twice; once is enough.')
    runs[name] = run
  return runs


def measure(
  runs: dict[str, trained.TrainedRun], batch_size: int
) -> dict[str, Tally]:
  """Evaluates runs, and the mean of their probabilities if there are several.

  Args:
    runs: Runs by name, each with its `eval.views` and `eval.split`.
    batch_size: Number of examples at a time.

  Returns:
    A tally for each row of the table, by name.

  Raises:
    UserError: If runs differ in classes or examples, or batches do not divide
      among the devices.
  """
  names = [*runs, f'{len(runs)} networks'] if len(runs) > 1 else list(runs)
  num_classes = _check_classes(runs)
  tallies = {name: Tally(num_classes) for name in names}
  for labels, members in _predictions(list(runs.values()), batch_size):
    if len(runs) > 1:
      mean = train_step.log_mean_exp(jnp.stack(members))
      members = [*members, np.asarray(mean)]
    for name, log_probs in zip(names, members, strict=True):
      tallies[name].add(labels, log_probs)
  return tallies


def _check_classes(runs: dict[str, trained.TrainedRun]) -> int:
  (name, first), *_ = runs.items()
  for other, run in runs.items():
    if run.class_names != first.class_names:
      raise errors.UserError(
        f'{other} and {name} were trained on different classes; evaluate '
        'them apart.'
      )
  return len(first.class_names)


def _predictions(
  runs: list[trained.TrainedRun], batch_size: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
  """Yields labels [b] and each run's log-probabilities [b, classes]."""
  for run in runs:
    parallel.check_batch_size(run.plan, batch_size)
  opened = [run.open_data() for run in runs]
  count = opened[0].num_examples(runs[0].config.eval.split)
  streams = [
    evaluate.predictions(run, prepared, batch_size)
    for run, prepared in zip(runs, opened, strict=True)
  ]
  batches = zip(*streams, strict=True)
  for batch in tqdm.tqdm(batches, total=-(-count // batch_size), unit='batch'):
    labels, log_probs = zip(*batch, strict=True)
    if any(not np.array_equal(other, labels[0]) for other in labels):
      raise errors.UserError(
        'the runs have different examples or orders; give them one --data_dir.'
      )
    yield labels[0], list(log_probs)


def markdown(rows: dict[str, dict], views: int, split: str) -> str:
  """Returns the table, and the classes that its last row errs most on.

  Args:
    rows: Summaries of tallies, by name.
    views: Number of views that were averaged.
    split: Name of the split.
  """
  cells = [
    (name, *(f'{100 * row[f"top{k}_error"]:.1f}%' for k in (1, 5)))
    for name, row in rows.items()
  ]
  (*_, (name, last)) = rows.items()
  by_class = {k: v for k, v in last['top1_error_by_class'].items() if v}
  worst = sorted(by_class, key=by_class.get, reverse=True)[:_WORST]
  listed = ', '.join(
    f'{readable} ({100 * by_class[k]:.1f}%)'
    for k, readable in zip(worst, ilsvrc.readable_names(worst), strict=True)
  )
  return (
    f'{tables.markdown(("Model", "Top-1", "Top-5"), cells)}\n\n'
    f'{last["examples"]:,} examples of {split}, {views} '
    f'{"view" if views == 1 else "views"}. {name} errs most often on: '
    f'{listed or "none"}.\n'
  )


def define_flags() -> None:
  """Defines the flags of this tool."""
  text = 'Runs, each DIR, DIR@STEP or DIR@best.'
  flags.DEFINE_list('workdirs', [], text)
  tool_flags.define_output('errors/', 'The directory to write to.')
  flags.DEFINE_enum(
    'split', 'validation', ['train', 'validation'], 'What to evaluate on.'
  )
  tool_flags.define_views()
  tool_flags.define_data()


def _write(
  output: pathlib.Path, tallies: dict[str, Tally], classes: list[str]
) -> str:
  rows = {name: tally.summary(classes) for name, tally in tallies.items()}
  about = {'views': int(flags.FLAGS.views), 'split': flags.FLAGS.split}
  output.mkdir(parents=True, exist_ok=True)
  results = json.dumps(about | {'models': rows}, indent=2) + '\n'
  (output / 'results.json').write_text(results)
  confusion = {name: tally.confusion for name, tally in tallies.items()}
  np.savez_compressed(output / 'confusion.npz', **confusion)
  text = markdown(rows, **about)
  (output / 'results.md').write_text(text)
  return text


def main(_) -> None:
  """Evaluates the runs that the flags name, and writes their table."""
  given = flags.FLAGS
  if not given.workdirs:
    raise errors.UserError('--workdirs is missing; give DIR,DIR@STEP,...')
  command_line.set_up_jax()
  overrides = tool_flags.overrides() | {'eval.split': given.split}
  runs = load_runs(given.workdirs, overrides)
  tallies = measure(runs, given.batch_size)
  (run, *_) = runs.values()
  output = paths.local('--output', given.output)
  print(_write(output, tallies, run.class_names))


if __name__ == '__main__':
  command_line.run(main, define_flags)
