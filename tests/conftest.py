"""Four virtual CPU devices for every test, and nothing in the user's home."""

import atexit
import os
import shutil
import tempfile

# What one test compiles, later ones read, and the processes that they start.
# pytest's workers have the directory of the process that started them.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _directory = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, _directory, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _directory
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

import jax

import alexnet_jax as alexnet_jax  # first, which keeps TensorFlow quiet

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
