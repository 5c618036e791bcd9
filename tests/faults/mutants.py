"""Shows that the fault cases can fail: each finds a fault put into the code.

    python -m tests.faults.mutants
    python -m tests.faults.mutants --names='restarts at 0'

Clones the last commit, puts one mutant into the clone and runs the case that
must find it, and so on. A mutant is caught if a row of the case is WRONG and
says the mutant's reason. Writes mutants.md to --workdir, if given. The exit
code is 1 if one was not caught, else 77 if this machine could not run a case.
All take some 40 minutes.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.tools import tables
from tests.faults import trial


@dataclasses.dataclass(frozen=True)
class Mutant:
  """A fault of the code.

  Attributes:
    name: Short description.
    path: File of the package.
    old: Text that the file has once.
    new: Text in its place.
    cases: Cases of `reliability`, each of which must find it.
    reason: Text that the WRONG row must say.
  """

  name: str
  path: str
  old: str
  new: str
  cases: tuple[str, ...]
  reason: str


MUTANTS = (
  Mutant(
    'restarts at 0',
    'train.py',
    'if multihost.broadcast(saved.latest_step() is not None):',
    '[saved._manager.delete(x) for x in saved._manager.all_steps()]\n'
    '  if False:',
    ('kills', 'kills_4', 'signals', 'sweep', 'clock', 'full_disks'),
    'started from step 0, not',
  ),
  Mutant(
    'saves every tenth checkpoint',
    'train.py',
    "if 'checkpoint' in due or is_over:",
    "if ('checkpoint' in due and step % 150 == 0) or is_over:",
    ('kills',),
    'steps made again',
  ),
  Mutant(
    'drops the rows of the restored step',
    'workdir/metrics_file.py',
    'self._last_rows = list(rows)',
    'self._last_rows = []',
    ('kills',),
    'metrics.jsonl',
  ),
  Mutant(
    'skips the pending work',
    'train.py',
    'if progress.is_pending:\n    yield',
    'if False:\n    yield',
    ('signals',),
    'metrics.jsonl',
  ),
  Mutant(
    'saves nothing at a signal',
    'train.py',
    'if step != saved.latest_step():\n          save(is_pending=True)',
    'pass',
    ('signals',),
    'newest:',
  ),
  Mutant(
    'saves without digests',
    'workdir/checkpoints.py',
    "extra | {'sha256': _digests(leaves, extra)}",
    'extra',
    ('damage',),
    'WRONG',
  ),
  Mutant(
    'compares no digests',
    'workdir/checkpoints.py',
    'if digest != saved.get(name):',
    'if False:',
    ('damage',),
    'WRONG',
  ),
  Mutant(
    'a full disk is a traceback',
    'command_line.py',
    'except OSError as error:\n    if error.filename',
    'except ZeroDivisionError as error:\n    if error.filename',
    ('full_disks',),
    '"OSError',
  ),
  Mutant(
    'EIO condemns a checkpoint',
    'workdir/checkpoints.py',
    '      _read_files(path)\n    raise',
    '      pass\n    raise',
    ('eio',),
    'exit code 0',
  ),
  Mutant(
    'reads once',
    'workdir/checkpoints.py',
    'for _ in range(2):',
    'for _ in range(1):',
    ('eio',),
    'started from step 15, not 30',
  ),
  Mutant(
    'takes over any lease',
    'locks.py',
    'if not found or _is_dead(found):',
    'if True:',
    ('lease',),
    'exit code 0',
  ),
  Mutant(
    'a lease that was taken over is renewed',
    'locks.py',
    'if found and {key',
    'if False and {key',
    ('lease',),
    'exit code 0',
  ),
  Mutant(
    'tells nobody an error',
    'multihost.py',
    '_report(error)\n    watcher.join()',
    'raise',
    ('hosts_2',),
    'not sooner',
  ),
  Mutant(
    'each process reads checkpoints',
    'workdir/checkpoints.py',
    'return multihost.broadcast(restored)',
    'return restored or self._first_whole(like)',
    ('hosts_2',),
    'hosts_2/late',
  ),
  Mutant(
    'all processes but one read a step ahead',
    'train.py',
    'start_step=first_step,\n    end_step=run.steps.total,',
    'start_step=first_step + jax.process_index(),\n'
    '    end_step=run.steps.total + jax.process_index(),',
    ('hosts_2',),
    'rows differ',
  ),
  Mutant(
    'keeps every batch',
    'meter.py',
    '      yield batch\n',
    '      self._bar.kept = [getattr(self._bar, "kept", None), batch]\n'
    '      yield batch\n',
    ('soak',),
    'MiB in use',
  ),
)


def define_flags() -> None:
  """Defines the flags of the program."""
  flags.DEFINE_string('workdir', None, 'Directory of mutants.md.')
  flags.DEFINE_list('names', [], 'Names of mutants; by default all.')


def main(_) -> None:
  """Runs the chosen mutants and prints the table."""
  names = flags.FLAGS.names
  if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
    raise errors.UserError(
      f'--names={",".join(unknown)} does not exist; choose from '
      f'{", ".join(mutant.name for mutant in MUTANTS)}.'
    )
  rows = []
  for mutant in MUTANTS:
    for case in mutant.cases if mutant.name in names or not names else ():
      rows.append((mutant.name, case, *_run(mutant, case)))
      print(' | '.join(rows[-1]), flush=True)
  head = ('fault put into the code', 'case', 'caught', 'what the case said')
  text = tables.markdown(head, rows, 'llll')
  print(text)
  if flags.FLAGS.workdir:
    workdir = pathlib.Path(flags.FLAGS.workdir).expanduser()
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'mutants.md').write_text(f'{text}\n')
  caught = {row[2] for row in rows}
  sys.exit(1 if 'NO' in caught else 77 * (trial.NOT_RUN in caught))


def _run(mutant: Mutant, case: str) -> tuple[str, str]:
  """Returns whether a case has caught a mutant, and what it said."""
  with tempfile.TemporaryDirectory(prefix='mutant-') as name:
    directory = pathlib.Path(name)
    code = directory / 'code'
    clone = ['git', 'clone', '--quiet', str(trial.ROOT), str(code)]
    subprocess.run(clone, check=True)
    _apply(mutant, code / 'alexnet_jax' / mutant.path)
    rows = _run_case(code, directory / 'out', case)
  wrong = [row['said'] for row in rows if row['outcome'] == trial.WRONG]
  caught = [said for said in wrong if mutant.reason in said]
  if caught:
    return 'yes', caught[0]
  if any(row['outcome'] == trial.NOT_RUN for row in rows):
    return trial.NOT_RUN, rows[0]['said']
  return 'NO', '; '.join(wrong) or 'nothing'


def _apply(mutant: Mutant, path: pathlib.Path) -> None:
  text = path.read_text()
  if text.count(mutant.old) != 1:
    raise errors.UserError(
      f'{mutant.path} has {mutant.old!r} {text.count(mutant.old)} times; give '
      f'the mutant {mutant.name!r} a text that is there once.'
    )
  path.write_text(text.replace(mutant.old, mutant.new))


def _run_case(
  code: pathlib.Path, out: pathlib.Path, case: str
) -> list[dict[str, str]]:
  """Runs a case in a clone; returns its rows."""
  program = [sys.executable, '-m', 'tests.faults.reliability']
  few = [f'--workdir={out}', f'--cases={case}', '--kills=5', '--minutes=3']
  few.append('--until_wrong')
  subprocess.run([*program, *few], cwd=code, check=False, capture_output=True)
  path = out / f'{case}.jsonl'
  if not path.exists():
    raise errors.UserError(f'{case} has ended before it had rows.')
  return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == '__main__':
  command_line.run(main, define_flags)
