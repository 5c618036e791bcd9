"""Batch normalisation whose moments do not depend on the number of devices.

(Ioffe and Szegedy 2015, arXiv 1502.03167.) flax's own takes its moments over
the global batch too, but not over groups of examples, with which a run on any
number of devices repeats what others trained with 32 images on each GPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jax import lax

from alexnet_jax import errors, parallel
from alexnet_jax.models import layers

# Momentum of the running moments: the share of the old value, torch's 1 - .1.
# A group of n > 0 examples, which follow each other in the global batch, has
# moments of its own; 0 is the whole batch.
FIELDS = {'momentum': 0.9, 'epsilon': 1e-5, 'group': 0}


class BatchNorm(nn.Module):
  """Normalises each channel; then scales and shifts it, unless told not to.

  Training takes the moments of the batch, in float32; evaluation takes their
  running means, 'mean' and 'var' of the collection 'batch_stats'. The running
  variance is that of flax: PyTorch's is larger by m / (m - 1), where m is the
  number of values that a moment is taken over.

  Attributes:
    fields: `config.model.batch_norm`, see `FIELDS`.
    towers: Towers that this device holds.
    affine: Whether it scales and shifts, and so has parameters.
    scale_init: Initializer of the scales.
  """

  fields: ml_collections.FrozenConfigDict
  towers: parallel.LocalTowers | parallel.DeviceTowers
  affine: bool = True
  scale_init: layers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Returns normalised [N, H, W, C], in the type of `x`."""
    channels = x.shape[-1:]
    scale, bias = 1.0, 0.0
    if self.affine:
      scale = self.param('scale', self.scale_init, channels)
      bias = self.param('bias', nn.initializers.zeros, channels)
    means = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    variances = self.variable('batch_stats', 'var', jnp.ones, channels)
    wide = layers.at_least_float32(x)
    if train:
      examples, shards = self._group(len(x))
      wide = wide.reshape(-1, examples, *x.shape[1:])  # groups lead
      moments = mean, variance = self._moments(wide, shards)
      self._update((means, variances), moments)
    else:
      mean, variance = means.value, variances.value
    wide = (wide - mean) * (lax.rsqrt(variance + self.fields.epsilon) * scale)
    return (wide + bias).reshape(x.shape).astype(x.dtype)

  def _group(self, local_batch: int) -> tuple[int, int]:
    """Returns a group's examples on this device, and shards that it spans."""
    group, shards = self.fields.group, self.towers.num_data_shards
    if not group:
      return local_batch, shards
    examples, spanned = min(group, local_batch), max(group // local_batch, 1)
    if (
      examples * spanned != group or local_batch % examples or shards % spanned
    ):
      raise errors.UserError(
        f'model.batch_norm.group={group} does not fit {shards} shards of '
        f'{local_batch} examples: give 0, or groups that divide a shard evenly '
        'or that the batch divides into evenly, each of whole shards.'
      )
    return examples, spanned

  def _moments(self, groups: jax.Array, shards: int) -> jax.Array:
    """Returns means and variances [2, G, 1, 1, 1, C] of [G, n, H, W, C]."""
    axes = tuple(range(1, groups.ndim - 1))
    moments = [x.mean(axes, keepdims=True) for x in (groups, groups * groups)]
    mean, square = self.towers.batch_mean(jnp.stack(moments), shards)
    return jnp.stack([mean, jnp.maximum(square - mean * mean, 0)])

  def _update(self, running: tuple[nn.Variable, ...], new: jax.Array) -> None:
    """Moves the running moments towards the mean of those of all groups."""
    new = new.mean(tuple(range(1, new.ndim - 1)))  # [2, C]
    if self.fields.group:
      new = self.towers.batch_mean(new, self.towers.num_data_shards)
    momentum = self.fields.momentum
    for variable, value in zip(running, new, strict=True):
      variable.value = momentum * variable.value + (1 - momentum) * value
