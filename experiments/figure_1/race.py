"""Epochs to a training error, at the rate that was best on another seed."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from alexnet_jax import errors
from alexnet_jax import rows as rows_lib
from alexnet_jax.sweeps import rate_search, sweep

TARGET = 0.25
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 0
_MOST_EPOCHS = 60.0  # of ReLU, and of tanh where ReLU takes more
_PATIENCE = 10.0  # times ReLU's epochs, for tanh


@dataclasses.dataclass(frozen=True)
class Condition:
  """What the paper leaves open.

  Attributes:
    overrides: of configs/cifar10_relu_tanh.py.
    start: the rate that is tried first.
  """

  overrides: sweep.Overrides
  start: float


@dataclasses.dataclass(frozen=True)
class Attempt:
  """One run: what it was, and how it went.

  Attributes:
    condition: its name.
    activation: 'relu' or 'tanh'.
    rate: the learning rate.
    seed: of the run.
    limit: most epochs that are of interest.
    epochs: to `TARGET`; None for more than `limit`.
    exploded: whether that is because numbers were not finite.
    curve: pairs of an epoch and the training error's mean over it.
  """

  condition: str
  activation: str
  rate: float
  seed: int
  limit: float
  epochs: float | None = None
  exploded: bool = False
  curve: Sequence[tuple[float, float]] = ()

  def told(self) -> str:
    """A line of JSON, without the curve."""
    fields = dataclasses.asdict(self)
    del fields['curve']
    return json.dumps(fields)


@dataclasses.dataclass(frozen=True)
class Line:
  """An activation under a condition.

  Attributes:
    tuning: attempts of the tuning seed, a rate each.
    attempts: the other seeds' at the best rate; where no rate arrives, the
      tuning seed's at the rate that was tried first.
  """

  tuning: Sequence[Attempt]
  attempts: Sequence[Attempt]

  @property
  def arrives(self) -> bool:
    """Whether any rate reached `TARGET`."""
    return any(attempt.epochs for attempt in self.tuning)


Pair = dict[str, Line]  # by activation


@dataclasses.dataclass(frozen=True)
class Lab:
  """Trains networks.

  Attributes:
    workdir: absolute path of all runs.
    data: as after the colon of --config.
    conditions: by name.
    execute: as `sweep_program.execute_all`.
    seeds: to run at the best rate.
    overrides: further fields of every run.
    attempts: all so far, by directory.
  """

  workdir: pathlib.Path
  data: str
  conditions: Mapping[str, Condition]
  execute: Callable[[Sequence[sweep.Run]], Iterable[sweep.Result]]
  seeds: Sequence[int]
  overrides: sweep.Overrides = dataclasses.field(default_factory=dict)
  attempts: dict[pathlib.Path, Attempt] = dataclasses.field(
    default_factory=dict
  )

  def train(
    self,
    condition: str,
    activation: str,
    rate: float,
    seeds: Sequence[int],
    limit: float,
  ) -> list[Attempt]:
    """Trains with each seed until `TARGET`, or for `limit` epochs.

    Raises:
      UserError: where a run fails, other than by numbers that explode, or
        `overrides` has a field that is set here.
    """
    attempts = {
      seed: Attempt(condition, activation, rate, seed, limit) for seed in seeds
    }
    runs = {seed: self._run(attempt) for seed, attempt in attempts.items()}
    for result in self.execute(list(runs.values())):
      seed = result['seed']
      attempts[seed] = _ended(attempts[seed], runs[seed], result)
      self.attempts[runs[seed].workdir] = attempts[seed]
      print(attempts[seed].told(), flush=True)
    return list(attempts.values())

  def _run(self, attempt: Attempt) -> sweep.Run:
    fields = {
      **self.conditions[attempt.condition].overrides,
      'model.activation': attempt.activation,
      'optimizer.learning_rate': attempt.rate,
      'seed': attempt.seed,
      'num_epochs': float(math.ceil(attempt.limit)),
      'stop_at_train_error': TARGET,
      'log_every_steps': 0,  # an epoch's mean is what is compared
      'eval_every_epochs': 0.0,
    }
    sweep.check_free(self.overrides, fields)
    parts = (
      attempt.condition.replace(' ', '_'),
      f'{attempt.activation}-{attempt.rate:g}',
      f'seed-{attempt.seed}',
    )
    directory = self.workdir.joinpath(*parts)
    config = f'configs/cifar10_relu_tanh.py:{self.data}'
    flags = sweep.main_flags(config, directory, fields | self.overrides)
    return sweep.Run(attempt.condition, attempt.seed, directory, flags)


def _ended(attempt: Attempt, run: sweep.Run, result: sweep.Result) -> Attempt:
  """With what came of it."""
  exploded = 'not finite' in result.get('reason', '')
  if result['status'] != 'finished' and not exploded:
    raise errors.UserError(f'{run.workdir}: {result["reason"]}')
  logged = rows_lib.parse(run.workdir / 'metrics.jsonl')
  curve = [
    (row['epoch'], row['top1_error'])
    for row in logged
    if row['split'] == 'train'
  ]
  epochs = rate_search.crossing(curve, TARGET)
  reached = epochs if epochs <= attempt.limit else None
  return dataclasses.replace(
    attempt, epochs=reached, exploded=exploded, curve=curve
  )


def measure(lab: Lab, condition: str, activation: str, limit: float) -> Line:
  """Looks for the best rate, then runs the other seeds."""
  tuning = []

  def epochs(rate: float, most: float) -> float:
    tuning.extend(lab.train(condition, activation, rate, [TUNING_SEED], most))
    return tuning[-1].epochs or math.inf

  start = lab.conditions[condition].start
  found = rate_search.search(epochs, RATES, start, limit)
  best = min(found, key=found.get)
  if math.isinf(found[best]):
    return Line(tuning, [a for a in tuning if a.rate == best])
  return Line(tuning, lab.train(condition, activation, best, lab.seeds, limit))


def compare(lab: Lab, condition: str) -> Pair:
  """ReLU, then tanh, which may take `_PATIENCE` times as long.

  Where ReLU does not arrive, tanh may take as long as that was given.

  Raises:
    UserError: where a run fails.
  """
  relu = measure(lab, condition, 'relu', _MOST_EPOCHS)
  arrivals = [attempt.epochs for attempt in relu.tuning if attempt.epochs]
  limit = (_PATIENCE * min(arrivals)) if arrivals else _MOST_EPOCHS
  return {'relu': relu, 'tanh': measure(lab, condition, 'tanh', limit)}
