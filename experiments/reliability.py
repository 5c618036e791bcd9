"""Nothing is lost: what runs survive, and what they refuse with a sentence.

    python -m experiments.reliability --workdir=runs/reliability
    python -m experiments.reliability --workdir=runs/reliability --cases=kills

Does to runs of the quickstart network what preemption, full disks, dying
processes and damaged files do (see experiments/faults). What is said to have
survived ended like a run that nobody touched: the last checkpoint's arrays bit
for bit, and metrics.jsonl but for `timing`; what was refused ended with exit
code 1 and one sentence. Writes CASE.jsonl to --workdir after each case, and in
the end results.md and results.jsonl of all, with each case's commit; a case
that went well is not run again. Exit code 1 where anything was lost or wrong.
Takes some two hours, one of them for `soak`.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from absl import flags

from alexnet_jax import command_line, errors, git, tables
from alexnet_jax import rows as rows_lib
from experiments.benchmarking import machine
from experiments.faults import (
  damage,
  disks,
  hosts,
  kills,
  numbers,
  soak,
  sweeps,
  trial,
)

# Makes rows, of a new directory.
Case = Callable[[pathlib.Path], Iterator[trial.Row]]
_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of all runs.')
_CASES = flags.DEFINE_list('cases', [], 'Which; by default all.')
_MINUTES = flags.DEFINE_float(
  'minutes', 60.0, 'Of the case soak.', lower_bound=1.0
)


def _cases() -> dict[str, Case]:
  """All of them, by name."""
  return {
    'kills': functools.partial(kills.storm, devices=1),
    'kills_4_devices': functools.partial(kills.storm, devices=4),
    'signals': kills.signals,
    'sweep': sweeps.storm,
    'checkpoints': damage.checkpoints,
    'metrics': damage.metrics,
    'full_disks': disks.full,
    'refusals': disks.refusals,
    'clock': disks.clock,
    'numbers': numbers.bad,
    'hosts_2': functools.partial(hosts.several, count=2),
    'hosts_4': functools.partial(hosts.several, count=4),
    'soak': functools.partial(soak.soak, minutes=_MINUTES.value),
  }


def _chosen() -> dict[str, Case]:
  cases = _cases()
  for name in _CASES.value:
    if name not in cases:
      raise errors.UserError(
        f'--cases={name} does not exist; choose from {", ".join(cases)}.'
      )
  return {name: cases[name] for name in _CASES.value or cases}


def _execute(make_rows: Case, directory: pathlib.Path) -> list[trial.Row]:
  """A case's rows; one that cannot be carried out ends in a wrong one."""
  shutil.rmtree(directory, ignore_errors=True)
  rows = []
  try:
    with trial.nothing_left():
      rows.extend(make_rows(directory))
  except (errors.UserError, OSError, subprocess.SubprocessError) as error:
    said = errors.first_line(error)
    rows.append(trial.Row(f'{directory.name}, the rest', trial.WRONG, said))
  return rows


def _write_rows(
  workdir: pathlib.Path, name: str, rows: list[trial.Row]
) -> None:
  commit = git.commit()
  described = [
    dataclasses.asdict(row)
    | {'said': row.said.replace(str(workdir), 'WORKDIR')}
    | {'of': name, 'commit': commit}
    for row in rows
  ]
  new = workdir / f'{name}.new'
  new.write_text(rows_lib.dump(described))
  new.rename(workdir / f'{name}.jsonl')


def _read_rows(workdir: pathlib.Path, name: str) -> list[dict[str, str]]:
  path = workdir / f'{name}.jsonl'
  text = path.read_text() if path.exists() else ''
  return [json.loads(line) for line in text.splitlines()]


def _is_done(name: str, rows: list[dict[str, str]]) -> bool:
  """Whether all went well, and, of a soak, for as long as is asked for."""
  fine = (trial.SURVIVED, trial.REFUSED)
  if not rows or any(row['outcome'] not in fine for row in rows):
    return False
  return name != 'soak' or rows[0]['case'] == soak.case(_MINUTES.value)


def _write_table(workdir: pathlib.Path) -> list[dict[str, str]]:
  """Of all cases that were run, by any process; returns its rows."""
  rows = [row for name in _cases() for row in _read_rows(workdir, name)]
  head = ('what was done', 'outcome', 'what was printed or measured')
  cells = [(row['case'], row['outcome'], row['said']) for row in rows]
  commits = ', '.join(sorted({row['commit'] for row in rows}))
  environment = machine.environment() | {'git_commit': commits}
  heading = machine.heading('What runs survive, and refuse', environment)
  text = f'{heading}\n{tables.markdown(head, cells, "lll")}\n'
  (workdir / 'results.md').write_text(text)
  (workdir / 'results.jsonl').write_text(rows_lib.dump(rows))
  print(text)
  return rows


def main(_) -> None:
  """Prints the table."""
  if not _WORKDIR.value:
    raise errors.UserError('--workdir is missing; give one for all runs.')
  workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
  workdir.mkdir(parents=True, exist_ok=True)
  for name, make_rows in _chosen().items():
    if not _is_done(name, _read_rows(workdir, name)):
      rows = _execute(make_rows, workdir / name)
      _write_rows(workdir, name, rows)
  rows = _write_table(workdir)
  sys.exit(any(row['outcome'] == trial.WRONG for row in rows))


if __name__ == '__main__':
  command_line.run(main)
