"""The project's own convolutions, for `experiments.benchmarks.convolutions`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from alexnet_jax import parallel
from alexnet_jax.models import layers
from experiments.benchmarks import contest, machine, step_worker


def _create(job: dict) -> tuple[dict[str, contest.Measure], dict]:
  count = job['batch_size']
  measures = {
    name: step_worker.timed(_start(count, layer, direction), count, 1)
    for name, (layer, direction) in job['programs'].items()
  }
  return measures, {'versions': machine.versions(('jax',))}


def _start(count: int, layer: dict, direction: str) -> step_worker.Start:
  """Returns a function that starts a convolution, or one of its gradients."""
  side, channels, kernel = layer['side'], layer['channels'], layer['kernel']
  towers = [
    jnp.ones((count, side, side, channels))
    for _ in range(1 if layer['shared'] else 2)
  ]
  kernels = jnp.ones((2, kernel, kernel, channels, layer['features']))

  def convolve(towers: layers.Towers, kernels: jax.Array) -> layers.Towers:
    both = towers * 2 if layer['shared'] else towers
    padding = tuple(layer['padding'])
    return layers.convolve_towers(both, kernels, layer['stride'], padding)

  shapes = jax.eval_shape(convolve, towers, kernels)
  gradient = [jnp.ones(maps.shape) for maps in shapes]
  program = {
    'forward': lambda x, k, _: convolve(x, k),
    'gradient of inputs': lambda x, k, g: _pull_back(
      lambda x: convolve(x, k), x, g
    ),
    'gradient of filters': lambda x, k, g: _pull_back(
      lambda k: convolve(x, k), k, g
    ),
  }[direction]
  compiled = (
    jax.jit(program)
    .lower(towers, kernels, gradient)
    .compile(parallel.compiler_options(deterministic=False))
  )

  def start() -> Callable[[], object]:
    results = compiled(towers, kernels, gradient)
    return functools.partial(jax.block_until_ready, results)

  return start


def _pull_back(function: Callable, x, gradient: layers.Towers):
  """Returns the gradient of a linear function's argument."""
  return jax.linear_transpose(function, x)(gradient)


if __name__ == '__main__':
  contest.serve(_create)
