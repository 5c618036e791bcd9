"""Rates that explode, and data that are not what they say.

Pictures are bytes, so that no batch has other numbers than 0 to 255; pictures
of another size are in tests/test_pipeline.py, and classes of another data set
in tests/test_train.py.
"""

import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from alexnet_jax.data import records, shapes
from experiments.faults import trial

_STEPS = 60
_GOOD_STEPS = 40
_NEWEST = 30  # of the checkpoints before that


def bad(workdir: pathlib.Path) -> Iterator[trial.Row]:
  """A rate that explodes after some checkpoints; damaged pictures and labels.

  Args:
    workdir: a new directory.
  """
  yield _explosion(workdir)
  data = workdir / 'rate' / 'data'
  yield _changed_byte(workdir, data)
  yield _wrong_labels(workdir, data)


def _explosion(workdir: pathlib.Path) -> trial.Row:
  images = _GOOD_STEPS * trial.BATCH_SIZE
  epochs = images / shapes.NUM_EXAMPLES['train']
  drops = f'--config.schedule.drops=(({epochs},1e5),)'
  run = trial.Run(workdir / 'rate', _STEPS, [drops])
  case = f'the rate explodes after step {_GOOD_STEPS}'
  row = trial.refused(case, run, 'not finite')
  number = re.search(r'step (\d+) were not finite .*loss: (\d\.\d+)', row.said)
  fine = number and _GOOD_STEPS < int(number[1]) <= _STEPS
  fine = fine and trial.newest(run.workdir).step == _NEWEST
  return row if fine else trial.Row(case, trial.WRONG, row.said)


def _changed_byte(workdir: pathlib.Path, data: pathlib.Path) -> trial.Row:
  path = sorted((data / 'shapes').glob('train-*'))[0]
  whole = path.read_bytes()
  changed = bytearray(whole)
  changed[len(changed) // 2] ^= 255
  path.write_bytes(changed)
  # More than an epoch: each picture is read.
  run = trial.Run(workdir / 'byte', 600, [f'--config.data.dir={data}'])
  row = trial.refused('a byte of the pictures changed', run, '--check')
  path.write_bytes(whole)
  return row


def _wrong_labels(workdir: pathlib.Path, data: pathlib.Path) -> trial.Row:
  """With a digest that fits: not a damaged file but a wrong one."""
  path, about = data / 'shapes' / 'train_labels.npy', data / 'shapes/info.json'
  labels = np.load(path)
  labels[len(labels) // 2] = 10
  np.save(path, labels)
  info = json.loads(about.read_text())
  info['sha256'][path.name] = records.sha256(path)
  about.write_text(json.dumps(info))
  run = trial.Run(workdir / 'labels', _STEPS, [f'--config.data.dir={data}'])
  return trial.refused('a label of 10 for ten classes', run, 'labels from 0 to')
