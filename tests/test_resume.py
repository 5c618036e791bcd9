"""Preparations that are killed, and several of the same set at once."""

import dataclasses
import fcntl
import hashlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
from concurrent import futures

import pytest

from alexnet_jax import errors
from alexnet_jax.data import prepare, records, shards, sources
from tests import pictures

SIZE = 16


def _source() -> sources.Source:
  """Five pictures, the second of which cannot be read, and three."""
  train, held_out = (
    [pictures.png(pictures.smooth(seed, 20, 24)) for seed in seeds]
    for seeds in (range(5), range(5, 8))
  )
  train[1] = b'no picture'
  return pictures.source(train, held_out)


def _prepare(data_dir, source: sources.Source, image_size=SIZE, **fields):
  fields = {'encoding': records.JPEG, 'skip_errors': True} | fields
  return prepare.prepare(
    source, str(data_dir), image_size, shard_size=2, **fields
  )


def _files(prepared: records.PreparedSet) -> dict[str, str]:
  """Digests of all that lies there."""
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in prepared.directory.iterdir()
  }


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> dict[str, str]:
  return _files(_prepare(tmp_path_factory.mktemp('undisturbed'), _source()))


def _stopping_at(number: int, stop):
  """PixelSums.add that calls `stop` before it adds image `number`."""
  add, numbers = shards.PixelSums.add, itertools.count(1)

  def wrapped(sums: shards.PixelSums, *image) -> None:
    if next(numbers) == number:
      stop()
    add(sums, *image)

  return wrapped


def _interrupt(*unused) -> None:
  raise KeyboardInterrupt


def _prepare_interrupted(
  data_dir, number: int, fingerprint: str = '', **fields
) -> None:
  with pytest.MonkeyPatch.context() as patch:
    wrapped = _stopping_at(number, _interrupt)
    patch.setattr(shards.PixelSums, 'add', wrapped)
    with pytest.raises(KeyboardInterrupt):
      source = dataclasses.replace(_source(), fingerprint=fingerprint)
      _prepare(data_dir, source, **fields)
  _assert_unfinished(data_dir)


def _assert_unfinished(data_dir: pathlib.Path) -> None:
  names = {path.name for path in data_dir.iterdir()}
  assert names == {'pictures.partial', 'pictures.lock'}
  assert records.open_prepared(str(data_dir), 'pictures') is None


# Readable are 1 + 2 + 1 pictures in the shards of train, 2 + 1 of validation.
@pytest.mark.parametrize(
  'number, starts',
  [
    # The second reads the name of the picture that is left out.
    (1, [('train', 0), ('train', 1), ('validation', 0)]),
    (3, [('train', 2), ('validation', 0)]),
    (5, [('validation', 0)]),
    (7, [('validation', 2)]),
  ],
)
def test_finished_shards_are_not_read_again(
  tmp_path, undisturbed, number, starts
):
  _prepare_interrupted(tmp_path, number)
  source, asked = pictures.watched(_source())
  assert _files(_prepare(tmp_path, source)) == undisturbed
  assert asked == starts


def test_a_set_that_lacked_only_its_name_is_not_read_again(
  tmp_path, undisturbed, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(os, 'rename', _interrupt)
    with pytest.raises(KeyboardInterrupt):
      _prepare(tmp_path, _source())
  _assert_unfinished(tmp_path)
  source, asked = pictures.watched(_source())
  assert _files(_prepare(tmp_path, source)) == undisturbed
  assert asked == []


def _prepare_killed(data_dir: str) -> None:
  """Runs in a process of its own."""

  def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

  shards.PixelSums.add = _stopping_at(3, kill)
  _prepare(data_dir, _source())


def test_a_killed_preparation_goes_on_after_its_last_shard(
  tmp_path, undisturbed
):
  call = f'test_resume._prepare_killed({str(tmp_path)!r})'
  process = subprocess.run(
    [sys.executable, '-c', f'from tests import test_resume; {call}'],
    cwd=pathlib.Path(__file__).parent.parent,
    stderr=subprocess.DEVNULL,
  )
  assert process.returncode == -signal.SIGKILL
  _assert_unfinished(tmp_path)
  source, asked = pictures.watched(_source())
  assert _files(_prepare(tmp_path, source)) == undisturbed
  assert asked == [('train', 2), ('validation', 0)]


@pytest.mark.parametrize(
  'other', [{'encoding': 'raw'}, {'fingerprint': 'other'}, {'image_size': 8}]
)
def test_work_on_another_job_is_neither_used_nor_lost(tmp_path, other):
  _prepare_interrupted(tmp_path, 3, **other)
  partial = tmp_path / 'pictures.partial'
  files = sorted(partial.iterdir())
  with pytest.raises(errors.UserError, match=str(partial)):
    _prepare(tmp_path, _source())
  assert sorted(partial.iterdir()) == files


# A directory of somebody else's, and kills while job.json was being written.
@pytest.mark.parametrize('job', [None, '', '{"source": "pict'])
def test_a_directory_of_no_known_job_is_replaced(tmp_path, undisturbed, job):
  partial = tmp_path / 'pictures.partial'
  partial.mkdir()
  (partial / 'junk').touch()
  if job is not None:
    (partial / 'job.json').write_text(job)
  assert _files(_prepare(tmp_path, _source())) == undisturbed


def test_one_of_two_preparations_waits_for_the_other(
  tmp_path, undisturbed, monkeypatch
):
  waiting, flock = threading.Event(), fcntl.flock

  def watched_flock(file, operation: int) -> None:
    if not operation & fcntl.LOCK_NB:
      waiting.set()
    flock(file, operation)

  monkeypatch.setattr(fcntl, 'flock', watched_flock)
  source, asked = pictures.watched(_source())
  examples = source.examples

  def patient_examples(split: str, start: int):
    assert waiting.wait(timeout=60)
    return examples(split, start)

  source = dataclasses.replace(source, examples=patient_examples)
  with futures.ThreadPoolExecutor(2) as pool:
    both = list(pool.map(_prepare, [tmp_path] * 2, [source] * 2))
  assert [_files(prepared) for prepared in both] == [undisturbed] * 2
  assert asked.count(('train', 0)) == 1
