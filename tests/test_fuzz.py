"""Any value of any field works, or ends in one sentence."""

import math

import hypothesis
import jax
import numpy as np
import pytest
from absl import flags
from flax import traverse_util
from hypothesis import strategies as st
from ml_collections import config_flags

from alexnet_jax import errors, parallel, train_step, validate
from tests import in_memory, tiny

FIELDS = traverse_util.flatten_dict(tiny.get_config('').to_dict(), sep='.')
VALUES = {
  bool: ('True', 'False'),
  int: ('-1', '0', '1', '2', '3', '7', '33', str(2**31), str(10**15)),
  float: ('-1', '0', '1e-9', '0.3', '5', '1e9', 'nan', 'inf', '-inf'),
  str: ('', 'x', 'lrn,', ',', 'conv1', 'conv3,fc6', 'max_pool', '../..', 'ü'),
  tuple: (
    '()',
    '(1,)',
    '((1, .1),)',
    '((1,),)',
    '((1, "a"),)',
    '(("nan", 1),)',
    '("conv1",)',
    '("conv1", "conv1")',
    '("act", "act")',
    '((2, .1), (1, .1))',
    '(-1, 2)',
    '((1, 1e400),)',
  ),
}


def _overrides():
  """Draws up to three fields with values of their types."""

  def value(field):
    kinds = VALUES.get(type(FIELDS[field]), ('1',))
    return st.tuples(st.just(field), st.sampled_from(kinds))

  one = st.sampled_from(sorted(FIELDS)).flatmap(value)
  return st.lists(one, min_size=1, max_size=3, unique_by=lambda pair: pair[0])


def _config(overrides):
  """Returns the config that main.py reads; None if its flags refuse it."""
  argv = ['main.py', '--config=tests/tiny.py:']
  argv += [f'--config.{field}={value}' for field, value in overrides]
  values = flags.FlagValues()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('sys.argv', argv)  # where overrides are looked for
    config_flags.DEFINE_config_file('config', flag_values=values)
    try:
      values(argv)
    except (flags.Error, ValueError, TypeError):
      return None
  return values['config'].value


@hypothesis.settings(deadline=None, max_examples=200, derandomize=True)
@hypothesis.given(_overrides())
def test_a_config_works_or_ends_in_one_sentence(overrides):
  config = _config(overrides)
  if config is None:
    return
  try:
    validate.check_config(config)
    run = in_memory.run_of(config)
    parallel.check_batch_size(run.plan, config.batch_size)
    state = train_step.abstract_train_state(config)
    rates = run.learning_rates(0, 1.0, state.params)
  except errors.UserError as error:
    assert '\n' not in str(error)
    assert str(error).endswith('.')
  else:
    assert run.steps.total >= 1
    for rate in traverse_util.flatten_dict(rates).values():
      assert math.isfinite(rate)
      assert rate >= 0
    if run.plan.num_devices == 1:
      _trace_step(run, state)


def _trace_step(run, state):
  """Checks shapes and types of the next state; computes nothing."""
  side, count = run.config.data.crop_size, min(run.config.batch_size, 64)
  batch = {
    'image': jax.ShapeDtypeStruct((count, side, side, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((count,), np.int32),
    'index': jax.ShapeDtypeStruct((count,), np.uint32),
  }
  after, _ = jax.eval_shape(run.train_program, state, batch, np.float32(1))
  for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
