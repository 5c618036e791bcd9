"""Shows that nothing is lost: does to runs what happens to runs.

    python -m tests.faults.reliability --workdir=runs/reliability
    python -m tests.faults.reliability --workdir=runs/reliability --cases=kills

Does to runs of the quickstart network what preemption, full disks, dying
processes and damaged files do. A run has survived if it ended like one that
nobody touched: the last checkpoint's arrays bit for bit, and metrics.jsonl but
for `timing`. Writes CASE.jsonl to --workdir after each case, and in the end
results.md and results.jsonl of all, with each case's commit. A case that went
well is not run again. The exit code is 1 if anything was lost or wrong, else 77
if this machine could not run a case. All take some 25 minutes, and two hours
with --kills=25 --minutes=60.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

from absl import flags

from alexnet_jax import command_line, errors, paths
from alexnet_jax.tools import tables
from alexnet_jax.workdir import environment, metrics_file
from experiments.benchmarks import machine
from tests.faults import (
  damage,
  disks,
  hosts,
  kills,
  preloaded,
  soak,
  sweeps,
  trial,
)

# Exit code if a case could not be carried out here; automake's for that.
_NOT_RUN = 77
# Yields the rows of a case, in a new directory.
Case = Callable[[pathlib.Path], Iterator[trial.Row]]


def define_flags() -> None:
  """Defines the flags of the program."""
  flags.DEFINE_string('workdir', None, 'Directory of all runs.')
  flags.DEFINE_list('cases', [], 'Names of cases; by default all.')
  flags.DEFINE_integer('kills', 8, 'Kills of `kills`.', lower_bound=4)
  flags.DEFINE_bool('until_wrong', False, 'End a case at its first WRONG row.')
  flags.DEFINE_float('minutes', 5, 'Length of `soak`.', lower_bound=1)


def _cases() -> dict[str, Case]:
  count = flags.FLAGS.kills
  return {
    'kills': functools.partial(kills.storm, devices=1, kills=count),
    'kills_4': functools.partial(kills.storm, devices=4, kills=count),
    'signals': kills.signals,
    'sweep': sweeps.storm,
    'damage': damage.every_file,
    'full_disks': disks.full,
    'eio': preloaded.eio,
    'clock': preloaded.clock,
    'lease': hosts.lease,
    'hosts_2': functools.partial(hosts.several, count=2),
    'hosts_4': functools.partial(hosts.several, count=4),
    'soak': functools.partial(soak.soak, minutes=flags.FLAGS.minutes),
  }


def main(_) -> None:
  """Runs the chosen cases and prints the table."""
  if not flags.FLAGS.workdir:
    raise errors.UserError('--workdir is missing; give one for all runs.')
  workdir = paths.local('--workdir', flags.FLAGS.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  for name, case in _chosen().items():
    if not _is_done(name, _read_rows(workdir, name)):
      _write_rows(workdir, name, _execute(case, workdir / name))
  rows = _write_table(workdir)
  outcomes = {row['outcome'] for row in rows}
  if trial.WRONG in outcomes:
    sys.exit(1)
  if trial.NOT_RUN in outcomes:
    sys.exit(_NOT_RUN)


def _chosen() -> dict[str, Case]:
  cases, names = _cases(), flags.FLAGS.cases
  for name in names:
    if name not in cases:
      raise errors.UserError(
        f'--cases={name} does not exist; choose from {", ".join(cases)}.'
      )
  return {name: cases[name] for name in names or cases}


def _execute(case: Case, directory: pathlib.Path) -> list[trial.Row]:
  """Returns a case's rows; one that cannot be carried out ends in WRONG."""
  shutil.rmtree(directory, ignore_errors=True)
  rows = []
  try:
    with trial.nothing_left():
      for row in case(directory):
        rows.append(row)
        if flags.FLAGS.until_wrong and row.outcome == trial.WRONG:
          break
  except Exception as error:
    said = f'{type(error).__name__}: {errors.first_line(error)}'
    rows.append(trial.Row(f'{directory.name}, the rest', trial.WRONG, said))
  return rows


def _write_rows(
  workdir: pathlib.Path, name: str, rows: list[trial.Row]
) -> None:
  commit = environment.git_commit()
  described = [
    dataclasses.asdict(row)
    | {'said': row.said.replace(str(workdir), 'WORKDIR')}
    | {'of': name, 'commit': commit}
    for row in rows
  ]
  new = workdir / f'{name}.new'
  new.write_text(metrics_file.dump(described))
  new.rename(workdir / f'{name}.jsonl')


def _read_rows(workdir: pathlib.Path, name: str) -> list[dict[str, str]]:
  path = workdir / f'{name}.jsonl'
  text = path.read_text() if path.exists() else ''
  return [json.loads(line) for line in text.splitlines()]


def _is_done(name: str, rows: list[dict[str, str]]) -> bool:
  """Returns whether all went well, with as much as is asked for."""
  if not rows or any(row['outcome'] != trial.SURVIVED for row in rows):
    return False
  kills_of = f'{flags.FLAGS.kills} x'
  asked = {'kills': kills_of, 'kills_4': kills_of}
  asked['soak'] = soak.case(flags.FLAGS.minutes)
  return rows[0]['case'].startswith(asked.get(name, ''))


def _write_table(workdir: pathlib.Path) -> list[dict[str, str]]:
  """Writes the table of all cases that any process ran; returns its rows."""
  rows = [row for name in _cases() for row in _read_rows(workdir, name)]
  head = ('what was done', 'outcome', 'what was printed or measured')
  cells = [(row['case'], row['outcome'], row['said']) for row in rows]
  commits = ', '.join(sorted({row['commit'] for row in rows}))
  about = machine.describe() | {'git_commit': commits}
  heading = machine.heading('What runs survive', about)
  text = f'{heading}\n{tables.markdown(head, cells, "lll")}\n'
  (workdir / 'results.md').write_text(text)
  (workdir / 'results.jsonl').write_text(metrics_file.dump(rows))
  print(text)
  return rows


if __name__ == '__main__':
  command_line.run(main, define_flags)
