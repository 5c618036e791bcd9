"""Rates that explode, and data that are not what they say."""

import pathlib
from collections.abc import Iterator

from experiments.faults import trial

_STEPS = 60


def bad(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """A rate that explodes after some checkpoints; damaged pictures and labels.

  Args:
    workdir: a new directory.
  """
  epochs = 40 * 16 / 5000  # of the set's 5,000 images: after 40 steps
  drops = f'--config.schedule.drops=(({epochs},1e5),)'
  run = trial.Run(workdir / 'rate', _STEPS, [drops])
  row = trial.refused('the rate explodes after step 40', run, 'not finite')
  kept = run.saved()
  outcome = row.outcome if max(kept, default=0) == 30 else trial.WRONG
  yield trial.Row(row.case, outcome, f'{row.said}; kept: {sorted(kept)}')
  data = workdir / 'rate' / 'data' / 'shapes'
  flags = [f'--config.data.dir={data.parent}']
  shard = sorted(data.glob('train-*'))[0]
  for path, part in ((shard, '--check'), (data / 'train_labels.npy', 'labels')):
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 255
    path.write_bytes(changed)
    run = trial.Run(workdir / path.name, 10 * _STEPS, flags)
    yield trial.refused(f'a byte of {path.name} changed', run, part)
    path.write_bytes(whole)
