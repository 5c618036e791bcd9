"""Four virtual CPU devices for every test."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
