"""Tricks of the training step, and replacements to leave one out."""

import contextlib
from unittest import mock

from alexnet_jax import parallel
from alexnet_jax.models import convolution, layers
from tests import reference

NOT_DONATED = 'state not donated'
PLACES = 'small and depthwise convolutions left to XLA'
_LOCAL = "local layers by JAX's own"
_DERIVED_NORM = 'response norm differentiated by JAX'
_POOLS = 'pools by reduce_window'
_BIASES = 'sums of biases left to XLA'
_READ_TWICE = 'what is read twice left to XLA'
_OPTIONS = 'no compiler options'
_SUMS = 'reductions by XLA itself'
_PIXELS = 'conv1 on pixels, not on blocks'

# Name -> functions and their replacements.
_REPLACED = {
  'towers as groups of one convolution': {
    'convolve_towers': reference.convolve_towers
  },
  'two convolutions for a shared input': {'_is_shared': lambda towers: False},
  _PIXELS: {'space_to_depth_convolve': layers.convolve},
  _LOCAL: {'convolve_locally': reference.convolve_locally},
  'a product for each dense tower': {
    'multiply_towers': reference.multiply_towers
  },
  _DERIVED_NORM: {
    'local_response_norm': reference.local_response_norm,
    'spatial_response_norm': reference.spatial_response_norm,
  },
  'response norm with powers': {
    '_power': lambda x, beta: x**beta,
    '_inverse_power': lambda x, beta: x**-beta,
  },
  _POOLS: {'pool': reference.pool},
  _BIASES: {'add_bias': reference.add_bias},
  _READ_TWICE: {'_stored': lambda x: x},
  PLACES: {'_is_slow': lambda x, kernel: False},
  _OPTIONS: {'compiler_options': lambda deterministic: {}},
  _SUMS: {'LIBRARY_FUSIONS': ('LIBRARY_FUSION_TYPE_DOT',)},
  NOT_DONATED: {},
}

OF_ALEXNET = [name for name in _REPLACED if name not in (_LOCAL, PLACES)]
OF_CIFAR10 = [_PIXELS, _POOLS, _BIASES, _READ_TWICE, _SUMS, _OPTIONS]
OF_CONV_LOCAL = [*OF_CIFAR10, _LOCAL, _DERIVED_NORM]


def left_out(name: str) -> contextlib.AbstractContextManager:
  """Returns a context in which a program is traced without one trick.

  Args:
    name: `PLACES`, or of `OF_ALEXNET`, `OF_CIFAR10` or `OF_CONV_LOCAL`; '' for
      all tricks.
  """
  module = {_OPTIONS: parallel, _SUMS: parallel, PLACES: convolution}.get(
    name, layers
  )
  replaced = _REPLACED[name] if name else {}
  if not replaced:
    return contextlib.nullcontext()
  return mock.patch.multiple(module, **replaced)
