"""Locks of files, where there are any."""

import errno
import fcntl

import pytest

from alexnet_jax import locks


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
