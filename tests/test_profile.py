"""experiments.benchmarks.profile: the bytes that an operation moves."""

import jax
import jax.numpy as jnp

from experiments.benchmarks import profile


def test_bytes_are_those_of_inputs_and_outputs():
  hlo = """
  %a = f32[2,3]{1,0} parameter(0)
  %b = (bf16[5]{0}, pred[], s32[]) custom-call(%a, %a), metadata={op_name="x"}
  ROOT %add.1 = f32[2,3]{1,0} add(%a, %b), metadata={op_name="x/y"}
"""
  whole = 4 * 6  # %a, which %b reads twice and which counts once
  expected = {'a': whole, 'b': 15 + whole, 'add.1': 2 * whole + 15}
  assert profile.bytes_moved(hlo) == expected


def test_the_text_is_that_of_xla():
  left, right = jnp.ones((8, 16)), jnp.ones((16, 4))
  hlo = jax.jit(jnp.dot).lower(left, right).compile().as_text()
  assert 4 * (8 * 16 + 16 * 4 + 8 * 4) in profile.bytes_moved(hlo).values()
