"""The paper's training step, lowered for accelerators that are not here."""

import functools
import re

import jax
import numpy as np
import pytest
from jax import export

from alexnet_jax import metrics, parallel, train_state, train_step
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
@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_the_step_lowers_for_accelerators(platform, dtype, name):
  config = alexnet.get_config()
  config.model.dtype, config.batch_size = dtype, 2
  plan = parallel.OneDevice(jax.devices()[0], config.model.towers)
  program = in_memory.program_of(config, plan)
  step = functools.partial(train_step.train_step, program)
  state, batch = (
    train_state.abstract_train_state(config),
    abstract_batch(config),
  )
  exported = export.export(
    jax.jit(step, donate_argnums=0), platforms=[platform]
  )(state, batch)

  assert exported.platforms == (platform,)
  assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 60965224
  (args, _), outputs = (
    jax.tree.unflatten(tree, avals)
    for tree, avals in (
      (exported.in_tree, exported.in_avals),
      (exported.out_tree, exported.out_avals),
    )
  )
  assert shapes_and_types(args) == shapes_and_types((state, batch))
  sums = dict.fromkeys(metrics.NAMES, ((), np.float32))
  assert shapes_and_types(outputs[0]) == shapes_and_types(state)
  assert shapes_and_types(outputs[1]) == sums

  module = exported.mlir_module()
  assert 'custom_call' not in module  # all is XLA's own
  assert module.count('tf.aliasing_output') == len(jax.tree.leaves(state))
  convolved = re.findall(r'stablehlo.convolution.*-> tensor<.*x(\w+)>', module)
  assert convolved and set(convolved) == {name}
