"""The paper's training step, lowered for accelerators that are not here."""

import re

import jax
import numpy as np
import pytest
from jax import export

from alexnet_jax import metrics, parallel, train_step
from configs import alexnet
from tests import in_memory


def abstract_batch(config):
  size, count = config.data.crop_size, config.batch_size
  return {
    'image': jax.ShapeDtypeStruct((count, size, size, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((count,), np.int32),
    'index': jax.ShapeDtypeStruct((count,), np.uint32),
  }


def shapes_and_types(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(
  'dtype, name', [('float32', 'f32'), ('bfloat16', 'bf16')]
)
def test_the_step_lowers_for_accelerators(monkeypatch, dtype, name):
  config = alexnet.get_config()
  config.model.dtype, config.batch_size, config.num_devices = dtype, 2, 1
  # The jitted function itself, which is not compiled for this machine.
  monkeypatch.setattr(
    parallel, '_compile_at_first_call', lambda jitted, deterministic: jitted
  )
  arguments = (
    train_step.abstract_train_state(config),
    abstract_batch(config),
    jax.ShapeDtypeStruct((), np.float32),  # rate_scale
  )
  platforms = ('cuda', 'tpu')
  step = in_memory.run_of(config).train_step
  exported = export.export(step, platforms=platforms)(*arguments)

  assert exported.platforms == platforms
  state = arguments[0]
  assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 60965224
  (args, _), outputs = (
    jax.tree.unflatten(tree, avals)
    for tree, avals in (
      (exported.in_tree, exported.in_avals),
      (exported.out_tree, exported.out_avals),
    )
  )
  assert shapes_and_types(args) == shapes_and_types(arguments)
  assert shapes_and_types(outputs[0]) == shapes_and_types(state)
  assert shapes_and_types(outputs[1]) == shapes_and_types(metrics.zeros())

  module = exported.mlir_module()
  assert 'custom_call' not in module  # all is XLA's own
  assert module.count('tf.aliasing_output') == len(jax.tree.leaves(state))
  convolved = re.findall(r'stablehlo.convolution.*-> tensor<.*x(\w+)>', module)
  assert convolved and set(convolved) == {name}
