"""What JAX knows of the device that a step runs on."""

import jax


class OnJaxDevice:
  """For a Step of JAX."""

  @property
  def is_on_cpu(self) -> bool:
    """Whether there is no accelerator."""
    return jax.default_backend() == 'cpu'

  def peak_memory(self) -> int:
    """The most bytes of the accelerator's memory in use so far."""
    return jax.devices()[0].memory_stats()['peak_bytes_in_use']
