"""Paths as users type them: URLs, ~, and every character that a name has."""

import pathlib

import pytest

from alexnet_jax import errors, paths, trained
from alexnet_jax.data import ilsvrc, records, sources
from alexnet_jax.tools import figures
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir import files
from tests import tiny

_CONFIG = tiny.get_config('data')
# What users name a place with -> function of that name.
_PLACES = {
  'workdir': lambda name: train_and_evaluate(_CONFIG, name),
  'a run': lambda name: trained.load(name, {}),
  'its config': files.read_config,
  'data.dir': lambda name: records.open_prepared(name, 'tiny'),
  'manual_dir': ilsvrc.check_present,
  'folder=': lambda name: sources.open_source(f'folder={name}'),
  'output': lambda name: figures.write(figures.create(1, 1), name),
}


@pytest.mark.parametrize('place', _PLACES)
@pytest.mark.parametrize(
  'name, reason',
  [
    ('gs://bucket/x', 'is a URL, and only paths'),
    ('s3:/bucket/x@5', 'is a URL, and only paths'),  # as pathlib writes it
    ('file:///tmp/x', 'is a URL, and only paths'),
    ('a\udcff/x', r"'a\\udcff/x' is no name in UTF-8"),
    ('a\0/x', 'is no name in UTF-8'),
    ('~no_such_user/x', 'write the path out'),
    ('circle/x', 'write the path out'),
  ],
)
def test_what_is_no_path_is_refused_before_anything_is_written(
  monkeypatch, tmp_path, place, name, reason
):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('circle').symlink_to('circle')
  with pytest.raises(errors.UserError, match=reason):
    _PLACES[place](name)
  assert list(pathlib.Path().iterdir()) == [pathlib.Path('circle')]


@pytest.mark.parametrize('name', ['a*b', 'a?b', '[x]/run', 'a\\\\b'])
def test_names_with_which_orbax_loses_checkpoints_are_refused(tmp_path, name):
  with pytest.raises(errors.UserError, match='cannot be read again'):
    train_and_evaluate(_CONFIG, tmp_path / name)
  assert not list(tmp_path.iterdir())


def test_a_path_is_what_a_shell_would_open(monkeypatch, tmp_path):
  (tmp_path / 'far' / 'there').mkdir(parents=True)
  (tmp_path / 'link').symlink_to('far/there')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'far'))
  for name in ('~/there', 'link/', 'link/../there', 'far//there/.'):
    assert paths.local('workdir', name) == tmp_path / 'far' / 'there'
  assert paths.local('workdir', 'a:b') == tmp_path / 'a:b'
