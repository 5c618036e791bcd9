"""Checkpoints return the saved bits, or say why not."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax import errors
from alexnet_jax.workdir import checkpoints
from tests.faults import damage as damages


def _state(step=3):
  rng = np.random.default_rng(step)
  return {
    'conv1': {'kernel': rng.normal(size=(2, 300)).astype(np.float32)},
    'step': np.int32(step),
  }


def _save(workdir, steps=(3,), keep=None):
  with checkpoints.Checkpointer(workdir, keep) as checkpointer:
    for step in steps:
      checkpointer.save(step, _state(step), {'plateau': {'best': step / 10}})


def _restore(workdir, like, step=0):
  with checkpoints.Checkpointer(workdir) as checkpointer:
    return checkpointer.restore(step, like)[1:]


def test_round_trip_is_exact(tmp_path):
  _save(tmp_path)
  state, extra = _restore(tmp_path, _state())
  jax.tree.map(np.testing.assert_array_equal, state, _state())
  assert state['step'].dtype == np.int32
  digests = extra.pop('sha256')
  assert extra == {'plateau': {'best': 0.3}}
  assert all(len(digest) == 64 for digest in digests.values())


def test_keeps_the_newest(tmp_path):
  _save(tmp_path, steps=(1, 2, 3, 4), keep=2)
  left = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert left == {'3', '4'}
  with pytest.raises(errors.UserError, match=r'eval.step=1.*\[3, 4\]'):
    _restore(tmp_path, _state(), step=1)


def test_keeps_the_best_beside_the_newest(tmp_path):
  with checkpoints.Checkpointer(tmp_path, 2) as checkpointer:
    for step, best_step in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2)):
      checkpointer.save(step, _state(step), {'best_step': best_step})
  left = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert left == {'2', '5', '6'}
  state, _ = _restore(tmp_path, _state(), checkpoints.BEST)
  jax.tree.map(np.testing.assert_array_equal, state, _state(2))
  damages.apply('truncated', tmp_path / 'checkpoints/6/extra/metadata')
  with pytest.raises(checkpoints.DamagedError, match='/6 .*WORKDIR@STEP'):
    _restore(tmp_path, _state(), checkpoints.BEST)


def test_without_evaluations_none_is_the_best(tmp_path):
  _save(tmp_path)
  with pytest.raises(errors.UserError, match='has no best checkpoint'):
    _restore(tmp_path, _state(), checkpoints.BEST)


def test_no_checkpoint_is_one_sentence(tmp_path):
  with pytest.raises(errors.UserError, match='none'):
    _restore(tmp_path, _state())


@pytest.mark.parametrize(
  'change, named',
  [
    (
      {'conv1': {'kernel': np.zeros((2, 4), np.float32)}},
      r'conv1/kernel.*2, 4',
    ),
    ({'conv1': {'kernel': np.zeros((2, 300), np.float16)}}, 'float16'),
    ({'conv2': {'kernel': np.zeros(2, np.float32)}}, 'conv2/kernel is missing'),
  ],
)
def test_another_network_is_refused_by_name(tmp_path, change, named):
  _save(tmp_path)
  with pytest.raises(errors.UserError, match=named):
    _restore(tmp_path, _state() | change)


@pytest.fixture(scope='module')
def two_checkpoints(tmp_path_factory):
  path = tmp_path_factory.mktemp('run')
  _save(path, steps=(2, 3))
  return path


@pytest.mark.parametrize('damage', damages.DAMAGES)
def test_damage_ends_in_saved_bits(two_checkpoints, tmp_path, damage):
  newest = two_checkpoints / 'checkpoints' / '3'
  files = [path for path in newest.rglob('*') if path.is_file()]
  assert len(files) > 5
  steps = set()
  for number, file in enumerate(files):
    run = tmp_path / str(number)
    shutil.copytree(two_checkpoints, run)
    damages.apply(damage, run / file.relative_to(two_checkpoints))
    with checkpoints.Checkpointer(run) as checkpointer:
      state, extra = checkpointer.restore_newest(_state())
      step = checkpointer.latest_step()
      jax.tree.map(np.testing.assert_array_equal, state, _state(step))
      assert extra['plateau'] == {'best': step / 10}
      # What is trained anew is saved anew.
      if step == 2:
        checkpointer.save(3, _state(3), {})
        checkpointer.wait()
        assert checkpointer.latest_step() == 3
    steps.add(step)
  # Some files matter, and others do not.
  assert steps == {2, 3}


def test_the_first_weights_of_a_fine_tuned_run_are_fallen_back_to(tmp_path):
  _save(tmp_path, steps=(0, 3))
  for manifest in (tmp_path / 'checkpoints' / '3').rglob('manifest.ocdbt'):
    manifest.unlink()
  with checkpoints.Checkpointer(tmp_path) as checkpointer:
    state, _ = checkpointer.restore_newest(_state())
  jax.tree.map(np.testing.assert_array_equal, state, _state(0))


def test_nothing_whole_is_refused_by_name(two_checkpoints, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(two_checkpoints, run)
  for manifest in run.rglob('manifest.ocdbt'):
    manifest.unlink()
  for _ in range(2):
    with (
      checkpoints.Checkpointer(run) as checkpointer,
      pytest.raises(checkpoints.DamagedError, match='checkpoints/3 cannot'),
    ):
      checkpointer.restore_newest(_state())


def test_a_disk_that_fails_condemns_no_checkpoint(
  two_checkpoints, tmp_path, monkeypatch
):
  run = tmp_path / 'run'
  shutil.copytree(two_checkpoints, run)
  newest = run / 'checkpoints' / '3'
  file = max(newest.rglob('d/*'), key=lambda path: path.stat().st_size)
  whole = file.rename(tmp_path / 'whole')
  file.symlink_to('/proc/self/mem')  # reading its first byte gives EIO
  monkeypatch.setattr(checkpoints, '_PAUSES', ())
  with checkpoints.Checkpointer(run) as checkpointer:
    with pytest.raises(OSError, match=f'Input/output error: .*{file.name}'):
      checkpointer.restore_newest(_state())
    assert newest.exists()
    # It fails once, and is well again before the second attempt.
    monkeypatch.setattr(checkpoints, '_PAUSES', (0,))
    monkeypatch.setattr(
      checkpoints.time, 'sleep', lambda _: whole.replace(file)
    )
    state, _ = checkpointer.restore_newest(_state())
  jax.tree.map(np.testing.assert_array_equal, state, _state(3))


def test_a_checkpoint_that_orbax_does_not_take_is_an_error(tmp_path):
  _save(tmp_path, steps=(3,))
  with (
    checkpoints.Checkpointer(tmp_path) as checkpointer,
    pytest.raises(errors.UserError, match='has not taken.*step 2'),
  ):
    checkpointer.save(2, _state(2), {})


def test_a_process_that_dies_while_it_replaces_leaves_the_old(
  tmp_path, monkeypatch
):
  _save(tmp_path)

  def die(*args, **kwargs):
    raise KeyboardInterrupt

  with checkpoints.Checkpointer(tmp_path) as checkpointer:
    monkeypatch.setattr(ocp.CheckpointManager, 'save', die)
    with pytest.raises(KeyboardInterrupt):
      checkpointer.save(3, _state(4), {})
    # Killed here, so that nothing is tidied at the end.
    checkpointer._replaces = False
  directory = tmp_path / 'checkpoints'
  (directory / f'4{ocp.utils.TMP_DIR_SUFFIX}' / 'state').mkdir(parents=True)
  monkeypatch.undo()
  with checkpoints.Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.latest_step() is None
    checkpointer.recover()
    state, _ = checkpointer.restore_newest(_state())
    jax.tree.map(np.testing.assert_array_equal, state, _state(3))
    checkpointer.save(3, _state(5), {'plateau': {}})
  assert [path.name for path in directory.iterdir()] == ['3']
  state, _ = _restore(tmp_path, _state())
  jax.tree.map(np.testing.assert_array_equal, state, _state(5))
