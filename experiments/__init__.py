"""Programs that test one claim each: python -m experiments.NAME."""

import alexnet_jax as alexnet_jax  # first, which keeps TensorFlow quiet
