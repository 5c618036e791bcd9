"""The project's own step, also with one of its tricks left out."""

import contextlib
import functools
from collections.abc import Callable
from unittest import mock

import jax
import ml_collections
import numpy as np

from alexnet_jax import durations, evaluate, parallel, train_state, train_step
from alexnet_jax.data import preprocessing
from alexnet_jax.models import layers, plain
from experiments.training_steps import jax_device

# So that colour noise and schedules are those of the full set.
_NUM_EXAMPLES = 1_281_167


def _without(module, name: str, replacement) -> Callable:
  return functools.partial(mock.patch.object, module, name, replacement)


def _power(x, beta):
  return x**beta


def _inverse_power(x, beta):
  return x**-beta


_LOCAL = "local layers by JAX's own"
# What each trick is replaced by.
ABLATIONS = {
  'towers as groups of one convolution': (
    _without(layers, 'convolve_towers', plain.convolve_towers),
  ),
  'two convolutions for a shared input': (
    _without(layers, '_is_shared', lambda towers: False),
  ),
  'conv1 on pixels, not on blocks': (
    _without(layers, 'space_to_depth_convolve', layers.convolve),
  ),
  _LOCAL: (_without(layers, 'convolve_locally', plain.convolve_locally),),
  'a product for each dense tower': (
    _without(layers, 'multiply_towers', plain.multiply_towers),
  ),
  'response norm differentiated by JAX': (
    _without(layers, 'local_response_norm', plain.local_response_norm),
    _without(layers, 'spatial_response_norm', plain.spatial_response_norm),
  ),
  'response norm with powers': (
    _without(layers, '_power', _power),
    _without(layers, '_inverse_power', _inverse_power),
  ),
  'pools by reduce_window': (_without(layers, 'pool', plain.pool),),
  'sums of biases left to XLA': (_without(layers, 'add_bias', plain.add_bias),),
  'what is read twice left to XLA': (_without(layers, '_stored', lambda x: x),),
  'no compiler options': (
    _without(parallel, 'compiler_options', lambda deterministic: {}),
  ),
  'state not donated': (),
}


ABLATIONS_OF_ALEXNET = [name for name in ABLATIONS if name != _LOCAL]
ABLATIONS_OF_CONV_LOCAL = [
  _LOCAL,
  'response norm differentiated by JAX',
  'pools by reduce_window',
  'sums of biases left to XLA',
  'what is read twice left to XLA',
  'no compiler options',
]


class Step(jax_device.OnJaxDevice):
  """The project's training step and evaluation on one batch."""

  def __init__(
    self, config: ml_collections.ConfigDict, batch: dict, without: str = ''
  ):
    """Puts a new network on the devices.

    Args:
      config: of a run.
      batch: a global batch, see `worker.random_batch`.
      without: the trick of `ABLATIONS` to leave out; '' for none.
    """
    plan = parallel.make_plan(config.model.towers, config.num_devices)
    parallel.check_batch_size(plan, config.batch_size)
    process = _preprocessing(config)
    steps = durations.count_steps(config, _NUM_EXAMPLES)
    program = train_step.create_program(config, plan, process, steps)
    self._patches = ABLATIONS[without] if without else ()
    self._update = program.compile(donate=without != 'state not donated')
    state = train_state.create_train_state(config)
    self._state = program.put_state(state)
    self._evaluate = plan.compile(
      functools.partial(
        evaluate.eval_step, program.model, process, plan, config.eval.views
      ),
      deterministic=config.deterministic,
      donate=False,
    )
    names = ('image', 'label', 'index')
    self._train_batch = plan.put_batch({n: batch[n] for n in names})
    names = ('label', 'mask')
    whole = {'image': batch['whole']} | {n: batch[n] for n in names}
    self._eval_batch = plan.put_batch(whole)

  def train(self) -> Callable[[], None]:
    """Starts one update."""
    with self._patched():
      self._state, sums = self._update(self._state, self._train_batch)
    return functools.partial(jax.block_until_ready, sums)

  def evaluate(self) -> Callable[[], None]:
    """Starts the sums of metrics over one batch."""
    with self._patched():
      sums = self._evaluate(self._state.params, self._eval_batch)
    return functools.partial(jax.block_until_ready, sums)

  @contextlib.contextmanager
  def _patched(self):
    """Only the first call traces, and so needs it."""
    with contextlib.ExitStack() as stack:
      for patch in self._patches:
        stack.enter_context(patch())
      yield


def _preprocessing(
  config: ml_collections.ConfigDict,
) -> preprocessing.Preprocessing:
  """Of made-up statistics: they cost the same."""
  size = config.data.crop_size
  return preprocessing.Preprocessing(
    mean_image=np.full((size, size, 3), 120, np.float32),
    eigenvalues=np.array([12e3, 8e2, 3e2], np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
    scale=np.float32(config.data.scale),
    crop_size=np.int32(size),
  )
