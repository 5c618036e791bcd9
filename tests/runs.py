"""What a run has left, to compare with another's; the config of its flags."""

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from alexnet_jax import validate


def assert_same(a, b) -> None:
  """Bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, a, b)


def config_of(run, monkeypatch):
  """The config of a sweep's run, as main.py would read it."""
  argv = ['main.py', *run.flags]
  monkeypatch.setattr('sys.argv', argv)  # where overrides are looked for
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  flags.DEFINE_string('workdir', None, '', flag_values=values)
  values(argv)
  config = values['config'].value
  validate.check_config(config)
  return config
