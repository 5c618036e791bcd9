"""Experiments as data: a claim, a base config and named variants of it."""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence

from alexnet_jax import errors
from alexnet_jax.tools import figures
from experiments.sweeps import runner

Overrides = runner.Overrides


@dataclasses.dataclass(frozen=True)
class Variant:
  """One row of an experiment's table.

  Attributes:
    overrides: Fields of the base config that this variant changes, by name.
    schedule: Length and drops of the published run. They are used on the
      experiment's own data; other data have a schedule of their own.
    narrow: Fields that fit this variant to the narrow networks that
      `Experiment.small` trains.
    published: Published top-1 error, or None.
    source: Where the number, or the run, was published.
    config: Base config, or '' for the experiment's.
    start: Variant whose weights, with the same seed, are the start; '' for
      none.
    is_worse: Whether the claim is that its error is higher than that of the
      first variant, where no number was published.
  """

  overrides: Overrides = dataclasses.field(default_factory=dict)
  schedule: Overrides = dataclasses.field(default_factory=dict)
  narrow: Overrides = dataclasses.field(default_factory=dict)
  published: float | None = None
  source: str = ''
  config: str = ''
  start: str = ''
  is_worse: bool = False


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A claim, and the runs that test it.

  Attributes:
    name: Name of the experiment.
    claim: Text above the table: what the paper says, with its section.
    config: Base config of all variants, a file of configs/.
    variants: Variants by name. The others are compared with the first.
    overrides: Fields that all variants change.
    data: Name of the data that the claim is about; '' for the config's own.
    small: Fields of a narrow and short recipe, for each other data set that
      has one.
    pictures: Fields of a short recipe at full width for `folder=PATH`, or None
      if there is no such recipe.
    seeds: Seeds of each variant.
    measure: Function of a finished run's workdir that returns further fields of
      its row in results.jsonl, or None.
    report: Function of the rows and the name of the data that returns the text
      of results.md and the figure of plot.png; None for those of `table`.
  """

  name: str
  claim: str
  config: str
  variants: Mapping[str, Variant]
  overrides: Overrides = dataclasses.field(default_factory=dict)
  data: str = 'imagenet2012'
  small: Mapping[str, Overrides] = dataclasses.field(default_factory=dict)
  pictures: Overrides | None = None
  seeds: Sequence[int] = (0, 1, 2)
  measure: Callable[[pathlib.Path], runner.Result] | None = None
  report: Callable[..., tuple[str, figures.Figure]] | None = None


def plan(
  experiment: Experiment,
  workdir: pathlib.Path,
  *,
  data: str = '',
  seeds: Sequence[int] = (),
  overrides: Overrides | None = None,
) -> list[runner.Run]:
  """Returns all runs: every variant with the first seed, then with the next.

  Args:
    experiment: Experiment to run.
    workdir: Absolute path; each run gets a directory in it.
    data: Name of the data, or '' for the experiment's own.
    seeds: Seeds of each variant; by default the experiment's.
    overrides: Further fields of every run, which win over its recipe.

  Raises:
    UserError: If the experiment has no recipe for the data, `overrides` has a
      field that makes a variant what it is, or a variant's start is missing.
  """
  data, overrides = data or experiment.data, overrides or {}
  recipes = {
    name: _recipe(experiment, variant, data)
    for name, variant in experiment.variants.items()
  }
  own = [variant.overrides for variant in experiment.variants.values()]
  check_free(overrides, {'seed'}.union(*own))
  return [
    runner.create_run(
      name,
      seed,
      _directory(workdir, name, seed),
      f'{variant.config or experiment.config}:{data}'.removesuffix(':'),
      {
        **experiment.overrides,
        **recipes[name],
        **_origin(variant, workdir, seed, overrides),
        **overrides,
      },
    )
    for seed in seeds or experiment.seeds
    for name, variant in experiment.variants.items()
  ]


def _directory(workdir: pathlib.Path, variant: str, seed: int) -> pathlib.Path:
  # Names of swept values may hold a slash.
  name = urllib.parse.quote(variant, safe=' =,()')
  return workdir / name / f'seed-{seed}'


def _origin(
  variant: Variant, workdir: pathlib.Path, seed: int, overrides: Overrides
) -> Overrides:
  """Returns the field that names the weights to start from, if any."""
  if not variant.start or 'init_from' in overrides:
    return {}
  origin = _directory(workdir, variant.start, seed)
  if not (origin / runner.FINISHED).exists():
    raise errors.UserError(
      f'{origin} holds no finished run of {variant.start}, whose weights are '
      'the start; train it there first, or give --set=init_from=WORKDIR.'
    )
  return {'init_from': origin}


def _recipe(experiment: Experiment, variant: Variant, data: str) -> Overrides:
  """Returns the fields of a variant on some data."""
  if data == experiment.data:
    return {**variant.schedule, **variant.overrides}
  if data.startswith('folder=') and experiment.pictures is not None:
    return {**experiment.pictures, **variant.overrides}
  if data in experiment.small:
    small = experiment.small[data]
    return {**small, **variant.overrides, **variant.narrow}
  names = [experiment.data, *experiment.small]
  names += [] if experiment.pictures is None else ['folder=PATH']
  raise errors.UserError(
    f'--data={data}: {experiment.name} has no recipe for it; give one of '
    f'{", ".join(names)}.'
  )


def check_free(overrides: Overrides, taken: Collection[str]) -> None:
  """Raises UserError if --set changes a field that the experiment sets.

  Args:
    overrides: Fields of --set.
    taken: Names of the fields that the experiment sets.
  """
  for name in overrides:
    if name in taken:
      raise errors.UserError(
        f'--set={name}={overrides[name]} would undo what the experiment sets; '
        'leave it out (--seeds and --variants choose among its runs).'
      )
