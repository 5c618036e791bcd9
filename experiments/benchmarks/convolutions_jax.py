"""The project's own convolutions, for `experiments.benchmarks.convolutions`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from alexnet_jax import parallel
from alexnet_jax.models import layers
from experiments.benchmarks import contest, step_worker


def _create(job: dict) -> tuple[dict[str, contest.Measure], dict]:
  count = job['batch_size']
  measures = {
    name: step_worker.timed(_start(count, layer, direction), count, 1)
    for name, (layer, direction) in job['programs'].items()
  }
  for measure in measures.values():
    measure(0.0)
  return measures, {}


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

  maps = jax.tree.map(jnp.ones_like, convolve(towers, kernels))
  program = jax.jit(_functions(convolve)[direction])
  options = parallel.compiler_options(deterministic=False)
  compiled = program.lower(towers, kernels, maps).compile(options)

  def start() -> Callable[[], object]:
    results = compiled(towers, kernels, maps)
    return functools.partial(jax.block_until_ready, results)

  return start


def _functions(convolve: Callable) -> dict[str, Callable]:
  """Returns a function of (towers, kernels, gradient) for each direction."""
  return {
    'forward': lambda x, k, g: convolve(x, k),
    'gradient of inputs': lambda x, k, g: jax.vjp(lambda x: convolve(x, k), x)[
      1
    ](g),
    'gradient of filters': lambda x, k, g: jax.vjp(lambda k: convolve(x, k), k)[
      1
    ](g),
  }


if __name__ == '__main__':
  contest.serve(_create)
