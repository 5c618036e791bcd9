"""AlexNet as a table of layers, over the towers that one device holds.

The table is `config.model` (see `configs/alexnet.py`), so that every historical
variant is a config. A row has

    kind       'conv', 'local', 'dense' or 'head' (the logits, which read all
               towers; every device holds their parameters)
    features   output channels of one tower
    kernel, stride, padding (lo, hi)
    gather     whether the layer reads all towers, or only its own
    init_std, init_bias
    after      operations that follow, in order: 'act', 'lrn', 'spatial_norm',
               'batch_norm' (each map on its own, without scale and shift),
               'max_pool', 'avg_pool', 'dropout'
    keep       probability that its dropout keeps a unit; 0 for the model's
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jax import lax

from alexnet_jax import errors, parallel
from alexnet_jax.models import batch_norm, layers

KINDS = ('conv', 'local', 'dense', 'head')
OPERATIONS = (
  'act',
  'lrn',
  'spatial_norm',
  'batch_norm',
  'max_pool',
  'avg_pool',
  'dropout',
)


def layer_table(
  model: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """Returns the rows of the network in order, without those of `model.omit`.

  The layer after an omitted one takes over its `gather`, the layer before it
  takes over its pools. So towers meet and pools shrink maps as before. Only the
  first layer's pools have no layer to go to.

  Raises:
    UserError: If the table or `omit` names something that does not exist, or
      the network is not an AlexNet.
  """
  if model.name != 'alexnet':
    raise errors.UserError(
      f'model.name={model.name}, and this works with the layers of an AlexNet '
      'only; give a run or a config of one.'
    )
  omit = [name for name in model.omit.split(',') if name]
  _check_omit(omit, model)
  _check_rows(model)
  rows, gather = {}, False
  for name in model.layers:
    row = ml_collections.ConfigDict(model[name].to_dict())
    row.after = tuple(op for op in row.after if op not in omit)
    row.gather = row.gather or gather
    row.keep = row.get('keep') or model.keep
    gather = row.gather and name in omit
    if name not in omit:
      rows[name] = row
    elif rows:
      pools = tuple(op for op in row.after if op.endswith('_pool'))
      rows[next(reversed(rows))].after += pools
  return rows


def layer_row(
  model: ml_collections.ConfigDict, layer: str
) -> ml_collections.ConfigDict:
  """Returns a layer's row of the table of layers.

  Raises:
    UserError: If the network has no such layer.
  """
  table = layer_table(model)
  if layer not in table:
    raise errors.UserError(
      f'layer={layer!r} does not exist in this network: choose from '
      f'{", ".join(table)}.'
    )
  return table[layer]


def _check_omit(omit: list[str], model: ml_collections.ConfigDict) -> None:
  known = (*model.layers[:-1], *OPERATIONS)
  for name in omit:
    if name not in known:
      raise errors.UserError(
        f'model.omit names {name!r}, which this network can not leave out: '
        f'choose from {", ".join(known)}.'
      )


def _check_rows(model: ml_collections.ConfigDict) -> None:
  for name in model.layers or ('',):
    row = model.get(name, {})
    kind = row.get('kind')
    if kind not in KINDS or (kind == 'head') != (name == model.layers[-1]):
      raise errors.UserError(
        f'model.layers has {name!r}, whose model.{name}.kind is {kind!r}: give '
        f'each layer a row of kind {", ".join(KINDS)}, and the head last.'
      )
    for operation in row.after:
      if operation not in OPERATIONS:
        raise errors.UserError(
          f'model.{name}.after names {operation!r}: choose from '
          f'{", ".join(OPERATIONS)}.'
        )


class AlexNet(nn.Module):
  """The network of the paper and its variants.

  Attributes:
    config: Table of layers, `config.model`, frozen.
    towers: Towers that this device holds, and how they meet.
  """

  config: ml_collections.FrozenConfigDict
  towers: parallel.LocalTowers | parallel.DeviceTowers

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    index: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """Returns the logits [N, num_classes], in float32.

    Args:
      images: [N, H, W, 3], preprocessed pixels.
      index: [N] of uint32, place of each example in the run, on which its
        dropout masks depend. Needed in training, as is a 'dropout' rng.
      train: Whether dropout draws masks and batch norm takes its moments from
        the batch.

    Raises:
      UserError: If a layer's input is smaller than its filters.
    """
    # Every column sees the whole image.
    x = [images.astype(self.config.dtype)] * len(self.towers.ids())
    for name, row in layer_table(self.config).items():
      x = self.block(name, row, x, index, train)
      self.sow('intermediates', f'{name}_output', x)
    return x[0]

  def block(
    self,
    name: str,
    row: ml_collections.ConfigDict,
    x: layers.Towers,
    index: jax.Array | None,
    train: bool,
  ) -> layers.Towers:
    """Applies one row of the table: a layer and the operations after it.

    It may be called only inside a compact method.
    """
    if row.gather:
      x = [self.towers.gather(x)] * len(x)  # [N, H, W, C] of all towers
    x = self._layer(name, row, x)
    for operation in row.after:
      x = self._operation(operation, name, row.keep, x, index, train)
    return x

  def _layer(
    self, name: str, row: ml_collections.ConfigDict, x: layers.Towers
  ) -> layers.Towers:
    init = {
      'kernel_init': _kernel_init(self.config.init, row),
      'bias_init': nn.initializers.constant(row.init_bias),
    }
    if row.kind == 'head':
      # In float32: logits that are rounded to bfloat16 tie.
      flat = layers.at_least_float32(x[0].reshape(x[0].shape[0], -1))
      classes = self.config.num_classes
      return [nn.Dense(classes, dtype=flat.dtype, name=name, **init)(flat)]
    if row.kind == 'dense':
      return layers.TowerDense(row.features, **init, name=name)(x)
    needed = row.kernel - sum(row.padding)
    layers.check_side(x[0], needed, f'model.{name}.kernel')
    layer = {'conv': layers.TowerConv, 'local': layers.TowerLocal}[row.kind]
    return layer(
      row.features,
      kernel=row.kernel,
      stride=row.stride,
      padding=tuple(row.padding),
      name=name,
      **init,
    )(x)

  def _operation(
    self,
    operation: str,
    name: str,
    keep: float,
    x: layers.Towers,
    index: jax.Array | None,
    train: bool,
  ) -> layers.Towers:
    if operation == 'dropout':
      dropout = layers.TowerDropout(
        keep, self.config.inverted_dropout, name=f'{name}_dropout'
      )
      return dropout(x, self.towers.ids(), index, train)
    if operation == 'batch_norm':
      return self._batch_norm(name, x, train)
    if operation == 'lrn' and self.config.lrn.across_towers:
      return self._across_towers(self._per_tower('lrn'), x)
    return [self._per_tower(operation)(tower) for tower in x]

  def _batch_norm(
    self, name: str, x: layers.Towers, train: bool
  ) -> layers.Towers:
    """Normalises each tower; its running moments have a tower axis."""
    per_tower = nn.vmap(
      batch_norm.BatchNorm,
      in_axes=(0, None),
      variable_axes={'batch_stats': 0},
    )
    fields = self.config.batch_norm
    norm = per_tower(fields, self.towers, False, name=f'{name}_batch_norm')
    return list(norm(jnp.stack(x), train))  # [T, N, ..., C]

  def _across_towers(
    self, function: Callable[[jax.Array], jax.Array], x: layers.Towers
  ) -> layers.Towers:
    """Applies a function to the channels of all towers together."""
    whole = function(self.towers.gather(x))  # [N, H, W, T * C]
    size = x[0].shape[-1]
    return [
      lax.dynamic_slice_in_dim(whole, tower * size, size, axis=-1)
      for tower in self.towers.ids()
    ]

  def _per_tower(self, operation: str) -> Callable[[jax.Array], jax.Array]:
    model = self.config
    if operation == 'act':
      return layers.ACTIVATIONS[model.activation]
    if operation == 'lrn':
      alpha = model.lrn.alpha / (model.lrn.n if model.lrn.alpha_over_n else 1)
      return functools.partial(
        layers.local_response_norm,
        n=model.lrn.n,
        k=model.lrn.k,
        alpha=alpha,
        beta=model.lrn.beta,
      )
    if operation == 'spatial_norm':
      return functools.partial(
        layers.spatial_response_norm, **model.spatial_norm
      )
    kind = operation.removesuffix('_pool')
    return functools.partial(_checked_pool, pool=model.pool, kind=kind)


# Leading axes of kernels that do not count for the fan-in: towers, positions.
_BATCH_AXES = {'conv': (0,), 'local': (0, 1, 2), 'dense': (0,), 'head': ()}


def _kernel_init(
  scheme: str, row: ml_collections.ConfigDict
) -> layers.Initializer:
  if scheme == 'normal':
    return nn.initializers.normal(row.init_std)
  return nn.initializers.variance_scaling(
    2.0, 'fan_in', 'normal', batch_axis=_BATCH_AXES[row.kind]
  )


def _checked_pool(x: jax.Array, pool: ml_collections.ConfigDict, kind: str):
  if pool.stride > pool.size:
    raise errors.UserError(
      f'model.pool.stride={pool.stride} leaves cells out between windows of '
      f'{pool.size}; give at most model.pool.size.'
    )
  # With `ceil`, the last window may hang over the edge by less than a stride.
  overhang = pool.stride - 1 if pool.ceil else 0
  layers.check_side(x, pool.size - overhang, 'model.pool.size')
  return layers.pool(x, kind, **pool)
