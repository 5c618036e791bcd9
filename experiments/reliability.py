"""Nothing is lost: what runs survive, and what they refuse with a sentence.

    python -m experiments.reliability --workdir=runs/reliability
    python -m experiments.reliability --workdir=runs/reliability --cases=kills

Does to runs of the quickstart network what preemption, full disks, dying
processes and damaged files do (see experiments/faults), and compares each with
a run that nobody touched: the last checkpoint's arrays bit for bit, and
metrics.jsonl but for `timing`. Writes results.md and results.jsonl to --workdir
after each case; a case that is there is not run again. Exit code 1 where
anything was lost or wrong. Takes some two hours, one of them for `soak`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

# Before TensorFlow starts: it only reads images here, and need not say so.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from absl import app, flags, logging

from alexnet_jax import command_line, errors, tables
from alexnet_jax import workdir as workdir_lib
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
_MINUTES = flags.DEFINE_float('minutes', 60.0, 'Of the case soak.')


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


def _read(workdir: pathlib.Path) -> dict[str, list[trial.Row]]:
  path = workdir / 'results.jsonl'
  if not path.exists():
    return {}
  found = {}
  for line in path.read_text().splitlines():
    row = json.loads(line)
    found.setdefault(row.pop('of'), []).append(trial.Row(**row))
  return found


def _write(workdir: pathlib.Path, found: dict[str, list[trial.Row]]) -> None:
  rows = [(name, row) for name in _cases() for row in found.get(name, ())]
  lines = [
    json.dumps({'of': name} | dataclasses.asdict(row)) + '\n'
    for name, row in rows
  ]
  (workdir / 'results.jsonl').write_text(''.join(lines))
  head = ('what was done', 'outcome', 'what was printed or measured')
  cells = [
    (row.case, row.outcome, row.said.replace(str(workdir), 'WORKDIR'))
    for _, row in rows
  ]
  text = tables.markdown(head, cells, 'lll') + '\n'
  (workdir / 'results.md').write_text(text)
  workdir_lib.write_environment(workdir)


def main(argv: list[str]) -> None:
  """Prints the table."""
  logging.set_verbosity(logging.WARNING)
  with command_line.one_sentence():
    command_line.check_no_arguments(argv)
    if not _WORKDIR.value:
      raise errors.UserError('--workdir is missing; give one for all runs.')
    workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    for name, make_rows in _chosen().items():
      if name in _read(workdir):
        continue
      shutil.rmtree(workdir / name, ignore_errors=True)
      rows = list(make_rows(workdir / name))
      # Another process may have run other cases meanwhile.
      _write(workdir, _read(workdir) | {name: rows})
    print((workdir / 'results.md').read_text())
  found = _read(workdir).values()
  outcomes = {row.outcome for rows in found for row in rows}
  sys.exit(trial.WRONG in outcomes)


if __name__ == '__main__':
  app.run(main)
