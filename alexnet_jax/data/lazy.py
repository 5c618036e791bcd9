"""TensorFlow and TFDS, imported at their first use.

Importing them takes seconds, which `--help` and tools that read no picture
should not cost.
"""

import contextlib

from etils import epy


def _hide_gpus(_: str) -> None:
  """Leaves all GPUs to JAX: TensorFlow would take most of their memory."""
  import tensorflow

  # Raised if the caller has already used TensorFlow on a GPU.
  with contextlib.suppress(RuntimeError):
    tensorflow.config.set_visible_devices([], 'GPU')


with epy.lazy_imports(success_callback=_hide_gpus):
  import tensorflow as tf  # noqa: F401
  import tensorflow_datasets as tfds  # noqa: F401
