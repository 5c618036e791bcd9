"""The other side of `contest`: a process that measures when it is told to.

It says one line of JSON when it is ready, then answers each command, a line
{"what", "seconds"}, by a line {"images", "seconds"}. `contest` keeps it stopped
in between.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

# Of a thing to measure: seconds -> (images, seconds that they took).
Measure = Callable[[float], tuple[int, float]]
# Starts work, and returns what waits for its end.
Run = Callable[[], Callable[[], None]]


def serve(create: Callable[[dict], tuple[dict[str, Measure], dict]]) -> None:
  """Answers commands on standard input until it ends.

  Args:
    create: makes, from the job, what to measure by name, and what to report
      beside the rates.
  """
  answers = _claim_stdout()

  def answer(**values) -> None:
    print(json.dumps(values), file=answers, flush=True)

  try:
    measures, about = create(json.loads(sys.argv[1]))
  except ImportError as error:
    answer(status='not installed', reason=str(error))
    return
  answer(status='ready', about=about)
  for line in sys.stdin:
    command = json.loads(line)
    images, seconds = measures[command['what']](command['seconds'])
    answer(images=images, seconds=seconds)


def _claim_stdout():
  """Standard output for the answers; what libraries print goes to stderr."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  return answers


def limit_cores(count: int) -> None:
  """Restricts this process, and what it starts, to so many cores."""
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def timed(
  batches: Iterator, seconds: float, skip: int, multiple: int = 1
) -> tuple[int, float]:
  """Counts the batches that come in at least `seconds`.

  Args:
    batches: taken as fast as they come.
    seconds: time to measure.
    skip: how many come before the clock starts: as many as may lie ready.
    multiple: whole turns of so many workers are counted, which often end
      together.

  Returns:
    Their number, and the time until the last one came.
  """
  for _ in itertools.islice(batches, skip):
    pass
  start, elapsed, count = time.perf_counter(), 0.0, 0
  while elapsed < seconds or count % multiple:
    next(batches)
    count += 1
    elapsed = time.perf_counter() - start
  return count, elapsed
