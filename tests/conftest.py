"""Four virtual CPU devices for every test, and nothing in the user's home."""

import os

# Of processes that tests start, too.
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = '0'

import jax

import alexnet_jax as alexnet_jax  # first, which keeps TensorFlow quiet

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
