"""Locks of files, and leases between hosts."""

import errno
import fcntl
import json
import os
import subprocess
import time

import pytest

from alexnet_jax import errors, locks


def test_a_lock_ends_with_its_file(tmp_path):
  path = tmp_path / 'lock'
  with path.open('w') as first, path.open('w') as second:
    assert locks.take(first, wait=False)
    assert not locks.take(second, wait=False)
    first.close()
    assert locks.take(second, wait=False)


@pytest.mark.parametrize(
  'number', [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK]
)
def test_a_file_system_without_locks_is_used_all_the_same(
  tmp_path, monkeypatch, caplog, number
):
  def fail(*_):
    raise OSError(number, 'no locks here')

  monkeypatch.setattr(fcntl, 'flock', fail)
  with (tmp_path / 'lock').open('w') as file:
    assert locks.take(file, wait=True)
  assert f'{tmp_path}/lock cannot be locked' in caplog.text


def test_other_errors_stay_errors(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(errno.EIO, 'broken')

  monkeypatch.setattr(fcntl, 'flock', fail)
  with (tmp_path / 'lock').open('w') as file, pytest.raises(OSError):
    locks.take(file, wait=True)


def _ended_process() -> int:
  with subprocess.Popen('true') as process:
    process.wait()
  return process.pid


@pytest.mark.parametrize(
  'found, must_wait',
  [
    # Another host, which does not renew its lease.
    ({'host': 'node7', 'boot': 'another', 'pid': 1, 'beat': 5}, True),
    # A process of this machine that has ended, or of which nothing is known.
    ({'host': 'here', 'boot': locks._boot(), 'pid': _ended_process()}, False),
    ({'host': 'here', 'boot': locks._boot(), 'pid': os.getppid()}, True),
    ('cut off', False),
  ],
)
def test_a_lease_of_a_dead_process_is_taken_over(
  tmp_path, monkeypatch, capsys, found, must_wait
):
  path = tmp_path / 'lease'
  path.write_text(json.dumps(found)[: 3 if found == 'cut off' else None])
  monkeypatch.setattr(locks, '_DEAD_SECONDS', 0.3)
  monkeypatch.setattr(locks, '_BEAT_SECONDS', 0.1)
  with locks.lease(path):
    assert json.loads(path.read_text())['pid'] == os.getpid()
    assert ('waiting' in capsys.readouterr().out) == must_wait
  assert not path.exists()


def test_a_lease_that_is_renewed_refuses_others(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, '_DEAD_SECONDS', 10)
  monkeypatch.setattr(locks, '_BEAT_SECONDS', 0.1)
  path = tmp_path / 'lease'
  with locks.lease(path):
    monkeypatch.setattr(locks, '_boot', lambda: 'of another host')
    message = f'process {os.getpid()} on .* trains there'
    with pytest.raises(errors.UserError, match=message), locks.lease(path):
      pass


def test_a_process_whose_lease_was_taken_ends(tmp_path, monkeypatch, capsys):
  ended = []
  monkeypatch.setattr(locks, '_BEAT_SECONDS', 0.05)
  monkeypatch.setattr(locks.os, '_exit', ended.append)
  path = tmp_path / 'lease'
  with locks.lease(path):
    other = {'host': 'node7', 'boot': 'another', 'pid': 1}
    path.write_text(json.dumps(other))
    while not ended:
      time.sleep(0.01)
  assert ended[0] == 1
  assert 'process 1 on node7 has taken over' in capsys.readouterr().err
