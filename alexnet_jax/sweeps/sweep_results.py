"""What a sweep found: a table with the paper's numbers, and a picture."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib import figure
from scipy import stats

from alexnet_jax import tables
from alexnet_jax.sweeps import sweep

_ERROR = 'top-1 error'
_HEAD = (
  'std',
  'training error',
  'seeds',
  'difference',
  'published',
  'its difference',
  'verdict',
)
_CONFIDENCE = 0.95  # of a verdict that means differ, if it were the only one


@dataclasses.dataclass(frozen=True)
class Row:
  """What a table says of a variant.

  Attributes:
    variant: its name.
    values: top-1 errors, by seed, for the seeds that finished.
    training: their top-1 errors in the last epoch of training.
    failures: reasons, for those that did not.
    published: as `sweep.Variant`.
    source: likewise.
  """

  variant: str
  values: tuple[float, ...]
  training: tuple[float, ...]
  failures: tuple[str, ...]
  published: float | None
  source: str

  @property
  def mean(self) -> float:
    """Of the values; nan where there are none."""
    return _mean(self.values)

  @property
  def std(self) -> float:
    """Standard deviation over seeds; nan for fewer than two."""
    return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

  @property
  def variance_of_mean(self) -> float:
    """Squared standard error; nan for fewer than two values."""
    return self.std**2 / len(self.values) if self.values else math.nan


def _mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def rows(
  experiment: sweep.Experiment, results: Sequence[Mapping[str, object]]
) -> list[Row]:
  """A row for each variant, in the experiment's order.

  Args:
    experiment: which.
    results: what `sweep.execute` returned.
  """

  def row(name: str, variant: sweep.Variant) -> Row:
    own = sorted(
      (r for r in results if r['variant'] == name), key=lambda r: r['seed']
    )
    finished = [r for r in own if r['status'] == 'finished']
    training = [r['training_error'] for r in finished]
    return Row(
      name,
      tuple(r['value'] for r in finished),
      tuple(error for error in training if error is not None),
      tuple(
        f'seed {r["seed"]}: {r["reason"]}'
        for r in own
        if r['status'] == 'failed'
      ),
      variant.published,
      variant.source,
    )

  return [row(*pair) for pair in experiment.variants.items()]


def verdict(row: Row, baseline: Row) -> str:
  """Whether a difference goes the way that the published one does."""
  variances = (row.variance_of_mean, baseline.variance_of_mean)
  if math.isnan(sum(variances)):
    return 'too few seeds'
  difference = row.mean - baseline.mean
  freedom = _freedom(variances, (len(row.values), len(baseline.values)))
  quantile = stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom)
  if abs(difference) <= quantile * math.sqrt(sum(variances)):
    return 'within the spread'
  if row.published is None or baseline.published is None:
    return 'higher' if difference > 0 else 'lower'
  same = difference * (row.published - baseline.published) > 0
  return 'as published' if same else 'the other way'


def _freedom(variances: tuple[float, float], counts: tuple[int, int]) -> float:
  """Degrees of Welch's t, of means with these variances."""
  if not any(variances):
    return 1.0
  terms = zip(variances, counts, strict=True)
  return sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in terms)


def markdown(
  experiment: sweep.Experiment, table: Sequence[Row], data: str
) -> str:
  """The table: means, spreads, differences, and the paper's beside them.

  Args:
    experiment: which.
    table: of `rows`.
    data: what was trained on; '' for the experiment's own.
  """
  baseline, *_ = table
  failures = [
    f'- {row.variant}, {failure}' for row in table for failure in row.failures
  ]
  sources = [f'- {row.variant}: {row.source}' for row in table if row.source]
  head = ('variant', _ERROR, *_HEAD)
  cells = [_cells(row, baseline) for row in table]
  parts = [experiment.claim, tables.markdown(head, cells, 'lrrrrrrrl')]
  parts.append(
    'Training errors are of the last epoch, with the dropout and augmentation '
    'that it had.'
  )
  parts.append(
    f"Verdicts are Welch's t test at {_CONFIDENCE:.0%}, each by itself; there "
    f'are {len(table) - 1}.'
  )
  if data not in ('', experiment.data):
    parts.append(
      f'Trained on {data}; published numbers are of {experiment.data}.'
    )
  if sources:
    parts.append('Published:\n\n' + '\n'.join(sources))
  if failures:
    parts.append('Failed:\n\n' + '\n'.join(failures))
  return '\n\n'.join(parts) + '\n'


def _cells(row: Row, baseline: Row) -> list[str]:
  errors = map(_number, (row.mean, row.std, _mean(row.training)))
  ours = [*errors, str(len(row.values))]
  published = _number(row.published)
  if row is baseline:
    return [row.variant, *ours, '', published, '', '']
  difference = _difference(row.mean, baseline.mean)
  theirs = _difference(row.published, baseline.published)
  judged = verdict(row, baseline)
  return [row.variant, *ours, difference, published, theirs, judged]


def _is_known(value: float | None) -> bool:
  return value is not None and not math.isnan(value)


def _number(value: float | None) -> str:
  return f'{value:.4g}' if _is_known(value) else ''


def _difference(value: float | None, other: float | None) -> str:
  known = _is_known(value) and _is_known(other)
  return f'{value - other:+.4f}' if known else ''


def draw(table: Sequence[Row]) -> figure.Figure:
  """A line for each variant: a dot for each seed, and their mean."""
  height = 0.9 + 0.36 * len(table)
  chart = figure.Figure((6.4, height), layout='constrained')
  axis = chart.subplots()
  for place, row in enumerate(table):
    axis.plot(row.values, [place] * len(row.values), 'o', color='C0', alpha=0.6)
    axis.plot([row.mean], [place], '|', color='black', markersize=16)
  axis.set_yticks(range(len(table)), [row.variant for row in table])
  axis.set(xlabel=_ERROR, ylim=(len(table) - 0.5, -0.5))
  axis.grid(axis='x', color='0.92')
  axis.spines[['top', 'right']].set_visible(False)
  return chart
