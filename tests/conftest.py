"""Four virtual CPU devices for every test, and nothing in the user's home."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# Of processes that tests start, too.
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = '0'

import jax

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
