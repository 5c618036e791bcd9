"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) as a JAX laboratory.

    import alexnet_jax
    run = alexnet_jax.load('runs/quickstart')
    run.predict(['cat.jpg', 'dog.jpg'])

`predict` returns the probabilities [2, classes].
"""

from __future__ import annotations

import os
import typing

if typing.TYPE_CHECKING:
  from alexnet_jax.trained import TrainedRun

__version__ = '0.1.0'

# Before TensorFlow starts. It only reads images here: it need not say so, nor
# use operations that not every CPU has.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def load(
  run: str | os.PathLike, *, views: int = 10, num_devices: int = 1
) -> TrainedRun:
  """Loads a trained network, to predict or to look inside.

  Args:
    run: WORKDIR; WORKDIR@STEP or WORKDIR@best for a checkpoint that is not the
      newest; or pretrained:NAME for a network that ships with the package.
    views: Patches of an image whose probabilities `predict` averages, 1 or 10
      (paper, section 4.1).
    num_devices: Number of devices to use, 0 for all.

  Raises:
    UserError: If there is no such run, or it is damaged.
  """
  from alexnet_jax import trained  # slow: not with `import alexnet_jax`

  overrides = {'eval.views': views, 'num_devices': num_devices}
  return trained.load(os.fspath(run), overrides)
