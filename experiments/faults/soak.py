"""Memory, speed and open files of a run that trains and evaluates for long."""

import pathlib
import signal
import time
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.faults import trial

_EVERY = 5.0  # seconds
_WARM_UP = 0.1  # of the time: caches fill
_MOST_MEMORY = 0.02  # growth an hour, of all
_LEAST_SPEED = 0.95  # of the last half over the first


def soak(workdir: pathlib.Path, minutes: float) -> Iterator[trial.Row]:
  """Trains, evaluates and saves for so long.

  Args:
    workdir: a new directory.
    minutes: how long.
  """
  case = f'{minutes:g} minutes of training and evaluation'
  run = trial.Run(workdir / 'soak', 10**7)
  run.wait_for(trial.Run.is_training)
  samples = []  # (seconds, files, bytes)
  began = time.monotonic()
  while (seconds := time.monotonic() - began) < 60 * minutes and run.is_alive():
    samples.append((seconds, *run.files_and_memory()))
    time.sleep(_EVERY)
  run.send(signal.SIGTERM)
  if run.wait() != 128 + signal.SIGTERM:
    yield trial.Row(case, trial.WRONG, f'ended early: "{run.last_line()}"')
    return
  rows = trial.rows(run.workdir, timing=True)
  yield _row(case, np.array(samples), rows)


def _row(case: str, samples: np.ndarray, rows: Sequence[dict]) -> trial.Row:
  """Slopes of straight lines through what came after the warm-up."""
  late = samples[samples[:, 0] > _WARM_UP * samples[-1, 0]]
  hours, files, memory = late[:, 0] / 3600, late[:, 1], late[:, 2]
  growth = np.polyfit(hours, memory, 1)[0]
  more_files = np.polyfit(hours, files, 1)[0]
  rates = [
    row['timing']['examples_per_second']
    for row in rows
    if row['split'] == 'train'
  ]
  rates = np.array(rates[int(_WARM_UP * len(rates)) :])
  first, last = np.array_split(rates, 2)
  speed = np.median(last) / np.median(first)
  fine = (
    growth < _MOST_MEMORY * memory.mean()
    and more_files < 1
    and speed > _LEAST_SPEED
  )
  said = (
    f'{rows[-1]["step"]} steps; {memory.mean() / 2**20:.0f} MiB, '
    f'{growth / 2**20:+.1f} MiB an hour; {files.mean():.0f} open files, '
    f'{more_files:+.2f} an hour; speed of the second half over the first '
    f'{speed:.3f}'
  )
  return trial.Row(case, trial.SURVIVED if fine else trial.WRONG, said)
