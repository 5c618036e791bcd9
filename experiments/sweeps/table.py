"""The table of a sweep, with published numbers beside ours, and its plot."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from alexnet_jax.tools import figures, tables
from experiments.sweeps import runner
from experiments.sweeps.experiment import Experiment, Variant

_ERROR = 'top-1 error'
_HEAD = (
  'variant',
  _ERROR,
  'std',
  'training error',
  'seeds',
  'difference',
  '95 % interval',
  'published',
  'its difference',
  'verdict',
)
_ABOUT_VERDICTS = (
  'A claim is supported where the whole interval has the sign of the published '
  'difference, or is above zero where no number but "worse" was published. It '
  'is contradicted where all of it has the other sign.'
)
_CONFIDENCE = 0.95  # of each interval by itself


@dataclasses.dataclass(frozen=True)
class Row:
  """The results of one variant, as the table shows them.

  Attributes:
    variant: Name of the variant.
    values: Top-1 errors of the runs that finished, by seed.
    training: Top-1 errors of these runs in the last epoch of training.
    failures: Reasons why the other runs have no result.
    published: Published top-1 error, or None, see `Variant`.
    source: Where that number was published, or ''.
    is_worse: Whether it is claimed to be worse, see `Variant`.
  """

  variant: str
  values: Mapping[int, float]
  training: tuple[float, ...]
  failures: tuple[str, ...]
  published: float | None
  source: str
  is_worse: bool

  @property
  def mean(self) -> float:
    """Returns the mean of the values; nan where there are none."""
    return _mean(list(self.values.values()))

  @property
  def std(self) -> float:
    """Returns the standard deviation over seeds; nan for fewer than two."""
    return _std(list(self.values.values()))


def _mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def _std(values: Sequence[float]) -> float:
  return statistics.stdev(values) if len(values) > 1 else math.nan


def rows(experiment: Experiment, results: Sequence[runner.Result]) -> list[Row]:
  """Returns a row for each variant that has results, in the results' order.

  The first row is the baseline of the others. A variant that the experiment
  does not know has a row without a published number.

  Args:
    experiment: Experiment that the results belong to.
    results: One mapping for each run, as `runner.measure` returns it.
  """
  names = dict.fromkeys(result['variant'] for result in results)
  return [_row(name, experiment, results) for name in names]


def _row(
  name: str,
  experiment: Experiment,
  results: Sequence[runner.Result],
) -> Row:
  variant = experiment.variants.get(name, Variant())
  own = sorted(
    (r for r in results if r['variant'] == name), key=lambda r: r['seed']
  )
  finished = [r for r in own if r['status'] == 'finished']
  failed = [r for r in own if r['status'] == 'failed']
  training = [r['training_error'] for r in finished]
  return Row(
    name,
    {r['seed']: r['value'] for r in finished},
    tuple(error for error in training if error is not None),
    tuple(f'seed {r["seed"]}: {r["reason"]}' for r in failed),
    variant.published,
    variant.source,
    variant.is_worse,
  )


def best(results: Sequence[runner.Result]) -> tuple[str, int] | None:
  """Returns the best run of the variant with the lowest mean error.

  Args:
    results: One mapping for each run, as `runner.measure` returns it.

  Returns:
    Variant and seed, or None if no run has finished.
  """
  finished = [r for r in results if r['status'] == 'finished']
  values = collections.defaultdict(dict)
  for result in finished:
    values[result['variant']][result['seed']] = result['value']
  if not values:
    return None
  variant = min(values, key=lambda name: _mean(list(values[name].values())))
  return variant, min(values[variant], key=values[variant].get)


def differences(row: Row, baseline: Row) -> list[float]:
  """Returns the variant's error minus the baseline's for each common seed."""
  common = [seed for seed in row.values if seed in baseline.values]
  return [row.values[seed] - baseline.values[seed] for seed in common]


def interval(paired: Sequence[float]) -> tuple[float, float] | None:
  """Returns the 95 % interval of the mean of paired differences.

  Args:
    paired: Differences, one for each seed.

  Returns:
    The two ends (Student's t), or None for fewer than two seeds.
  """
  if len(paired) < 2:
    return None
  from scipy import stats

  # The same as ttest_rel of the two lists that were subtracted.
  return tuple(stats.ttest_1samp(paired, 0).confidence_interval(_CONFIDENCE))


def smallest_difference(table: Sequence[Row]) -> float:
  """Returns the smallest difference that the table could tell from zero.

  It is half the width of an interval whose differences have the pooled
  standard deviation of the table; nan where nothing is paired.
  """
  baseline, *others = table
  # The standard deviation of one variant's three differences is very rough, so
  # all variants share one: the root mean square. Variants whose error is the
  # same with every seed are left out: they are at chance, and their differences
  # vary as the baseline alone does.
  paired = [differences(row, baseline) for row in others if row.std]
  paired = [found for found in paired if len(found) > 1]
  if not paired:
    return math.nan
  from scipy import stats

  pooled = math.sqrt(statistics.fmean(map(statistics.variance, paired)))
  count = max(map(len, paired))
  quantile = stats.t.ppf(0.5 + _CONFIDENCE / 2, count - 1)
  return quantile * pooled / math.sqrt(count)


def markdown(experiment: Experiment, table: Sequence[Row], data: str) -> str:
  """Returns results.md: the table, and what its columns mean.

  Args:
    experiment: Experiment that the table belongs to.
    table: Rows as `rows` returns them.
    data: Name of the data trained on; '' for the experiment's own.
  """
  baseline, *_ = table
  failures = [
    f'- {row.variant}, {failure}' for row in table for failure in row.failures
  ]
  has_claims = any(row.published is not None or row.is_worse for row in table)
  head = _HEAD if has_claims else _HEAD[:-3]
  sources = [f'- {row.variant}: {row.source}' for row in table if row.source]
  parts = [
    experiment.claim,
    tables.markdown(
      head, [_cells(row, baseline)[: len(head)] for row in table]
    ),
    'Training errors are of the last epoch, with the dropout and augmentation '
    'that it had.',
    *_about_intervals(table),
  ]
  if has_claims:
    parts.append(_ABOUT_VERDICTS)
  if data not in ('', experiment.data):
    published = f'; published numbers are of {experiment.data}'
    parts.append(f'Trained on {data}{published if has_claims else ""}.')
  if sources:
    parts.append('Published:\n\n' + '\n'.join(sources))
  if failures:
    parts.append('No result:\n\n' + '\n'.join(failures))
  return '\n\n'.join(parts) + '\n'


def _about_intervals(table: Sequence[Row]) -> list[str]:
  """Returns what the intervals are worth; nothing where there are none."""
  baseline, *others = table
  count = max((len(differences(row, baseline)) for row in others), default=0)
  if count < 2:
    return []
  smallest = smallest_difference(table)
  return [
    "Intervals are Student's t for the mean of the differences, paired by seed "
    f'({count} seeds), each at 95 % by itself. Runs of one seed share the '
    'order of the images, crops and noise. With few seeds an interval is a '
    'rough guide.',
    f'Differences below {smallest:.2g} could not be told from zero. This is '
    'half the width of an interval at the pooled standard deviation of all '
    "variants' differences (variants at chance are left out). A much narrower "
    'interval may be luck.',
  ][: 1 if math.isnan(smallest) else 2]


def _cells(row: Row, baseline: Row) -> list[str]:
  errors = map(_number, (row.mean, row.std, _mean(row.training)))
  ours = [row.variant, *errors, str(len(row.values))]
  published = _number(row.published)
  if row is baseline:
    return [*ours, '', '', published, '', '']
  paired = differences(row, baseline)
  known = row.published is not None and baseline.published is not None
  theirs = row.published - baseline.published if known else float(row.is_worse)
  return [
    *ours,
    *difference_cells(paired),
    published,
    f'{theirs:+.4f}' if known else '',
    _verdict(interval(paired), theirs),
  ]


def _verdict(ends: tuple[float, float] | None, claimed: float) -> str:
  """Returns what an interval says of a claimed difference's sign."""
  if ends is None or not claimed:
    return ''
  low, high = sorted(end * claimed for end in ends)
  if low > 0:
    return 'supported'
  return 'contradicted' if high < 0 else 'not resolved'


def difference_cells(paired: Sequence[float]) -> list[str]:
  """Returns two cells of a table: the mean difference and its interval.

  Args:
    paired: Differences, one for each seed.
  """
  mean = f'{_mean(paired):+.4f}' if paired else ''
  ends = interval(paired) or ()
  return [mean, ' to '.join(f'{end:+.4f}' for end in ends)]


def _number(value: float | None) -> str:
  return '' if value is None or math.isnan(value) else f'{value:.4g}'


def draw(table: Sequence[Row]) -> figures.Figure:
  """Returns a plot: a line for each variant with its seeds and their mean."""
  height = 0.9 + 0.36 * len(table)
  chart = figures.create(6.4, height, layout='constrained')
  axis = chart.subplots()
  for place, row in enumerate(table):
    values = list(row.values.values())
    axis.plot(values, [place] * len(values), 'o', color='C0', alpha=0.6)
    axis.plot([row.mean], [place], '|', color='black', markersize=16)
  axis.set_yticks(range(len(table)), [row.variant for row in table])
  axis.set(xlabel=_ERROR, ylim=(len(table) - 0.5, -0.5))
  axis.grid(axis='x', color='0.92')
  axis.spines[['top', 'right']].set_visible(False)
  return chart
