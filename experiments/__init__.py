"""One claim or tool a file, each a program: python -m experiments.NAME."""

import alexnet_jax as alexnet_jax  # first, which keeps TensorFlow quiet
