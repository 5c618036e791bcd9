"""Plans that spread towers and shards of the batch over devices.

The paper's two GPUs hold one column of the network each. Here the per-device
program is written over the towers that a device holds, and one of two plans
runs it:

    OneDevice    jit; the device holds all T towers
    ManyDevices  pmap over T * D devices; device d * T + t holds tower t and
                 shard d of the batch (T = 1: data-parallel only)

This is the only file that knows pmap. pmap has one flat axis, so towers and
data are `axis_index_groups` of it:

    tower groups  [[0, 1], [2, 3], ...]     devices that share a shard
    data groups   [[0, 2, ...], [1, 3, ...]]  devices that share a tower
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import lax

from alexnet_jax import errors

_AXIS = 'devices'
# What the library of XLA's kernels does on CPUs, beside its convolutions.
LIBRARY_FUSIONS = ('LIBRARY_FUSION_TYPE_DOT', 'LIBRARY_FUSION_TYPE_REDUCE')
Tree = Any


@dataclasses.dataclass(frozen=True)
class LocalTowers:
  """All towers on this device; they meet by concatenation."""

  count: int
  num_data_shards = 1

  def ids(self) -> list[int]:
    """Returns the numbers of the towers that this device holds."""
    return list(range(self.count))

  def gather(self, towers: list[jax.Array]) -> jax.Array:
    """Joins [..., C] of the local towers to [..., T * C] of all towers."""
    return jnp.concatenate(towers, axis=-1)

  def batch_mean(self, x: jax.Array, shards: int) -> jax.Array:
    """Returns the mean over shards of the batch, of which there is one."""
    del shards
    return x


@dataclasses.dataclass(frozen=True)
class DeviceTowers:
  """One tower on this device; towers meet by an all-gather of their group."""

  count: int
  num_devices: int

  @property
  def groups(self) -> list[list[int]]:
    """Groups of devices that work on the same shard of the batch."""
    devices = np.arange(self.num_devices).reshape(-1, self.count)
    return devices.tolist()

  @property
  def num_data_shards(self) -> int:
    """Number of shards of the batch."""
    return self.num_devices // self.count

  def ids(self) -> list[jax.Array]:
    """Returns the number of this device's tower (inside the program)."""
    return [lax.axis_index(_AXIS) % self.count]

  def gather(self, towers: list[jax.Array]) -> jax.Array:
    """Joins [..., C] of the local towers to [..., T * C] of all towers."""
    return lax.all_gather(
      towers[0],
      _AXIS,
      axis=towers[0].ndim - 1,
      tiled=True,
      axis_index_groups=self.groups,
    )

  def batch_mean(self, x: jax.Array, shards: int) -> jax.Array:
    """Returns the mean over `shards` consecutive shards of the batch.

    It is taken among the devices that hold the same tower.
    """
    same_tower = np.array(self.groups).T  # [T, D], numbers of devices
    groups = same_tower.reshape(-1, shards).tolist()
    return lax.pmean(x, _AXIS, axis_index_groups=groups)


class OneDevice:
  """One device that holds every tower and the whole batch."""

  num_devices = 1
  num_data_shards = 1
  # Devices that compute the loss of the same examples.
  towers_per_example = 1

  def __init__(self, device: jax.Device, num_towers: int):
    self.towers = LocalTowers(num_towers)
    self._device = device

  def compile(
    self, function: Callable, *, deterministic: bool, donate: bool
  ) -> Callable:
    """Returns `function` as a program, compiled at its first call.

    Args:
      function: Per-device function of trees that the `put_` methods have made.
      deterministic: Whether the same inputs must give the same bits.
      donate: Whether the first argument's buffers may be reused.
    """
    jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
    return _compile_at_first_call(jitted, deterministic)

  def put_state(self, state: Tree, by_tower: Tree) -> Tree:
    """Puts a canonical tree on the device."""
    del by_tower
    return jax.device_put(state, self._device)

  def get_state(self, state: Tree, by_tower: Tree) -> Tree:
    """Returns the canonical tree as numpy arrays that own their memory."""
    del by_tower
    return jax.tree.map(lambda x: np.array(jax.device_get(x)), state)

  def share(self, batch_size: int) -> slice:
    """Returns which examples of a global batch this process must read."""
    return slice(0, batch_size)

  def put_batch(self, batch: Tree) -> Tree:
    """Puts host arrays [B, ...] on the device."""
    return jax.device_put(batch, self._device)

  def get(self, tree: Tree) -> Tree:
    """Returns values that are the same on all devices, as numpy arrays."""
    return jax.device_get(tree)

  def get_batch(self, tree: Tree) -> Tree:
    """Returns values of each example as numpy arrays [B, ...]."""
    return jax.device_get(tree)

  def sum_data_shards(self, tree: Tree) -> Tree:
    """Returns the sums over the shards of the batch (inside the program)."""
    return tree

  def sum_gradients(self, gradients: Tree, by_tower: Tree) -> Tree:
    """Returns the sums over devices that hold a copy (inside the program)."""
    del by_tower
    return gradients

  def squared_norms(self, tree: Tree, by_tower: Tree) -> Tree:
    """Returns each leaf's squared L2 norm, over all towers (in the program)."""
    del by_tower
    return jax.tree.map(lambda x: jnp.sum(jnp.square(x)), tree)

  def any(self, flag: jax.Array) -> jax.Array:
    """Returns whether `flag` is true on any device (inside the program)."""
    return flag


class ManyDevices:
  """T * D devices: D shards of the batch times T towers."""

  def __init__(self, devices: list[jax.Device], num_towers: int):
    self.num_devices = len(devices)
    self.num_data_shards = len(devices) // num_towers
    self.towers_per_example = num_towers
    self.towers = DeviceTowers(num_towers, len(devices))
    self._devices = devices
    mesh = jax.sharding.Mesh(np.array(devices), (_AXIS,))
    self._sharding = jax.NamedSharding(mesh, jax.P(_AXIS))

  @property
  def _data_groups(self) -> list[list[int]]:
    return np.array(self.towers.groups).T.tolist()

  def compile(
    self, function: Callable, *, deterministic: bool, donate: bool
  ) -> Callable:
    """Returns `function` as a program, compiled at its first call.

    Args:
      function: Per-device function of trees that the `put_` methods have made.
      deterministic: Whether the same inputs must give the same bits.
      donate: Whether the first argument's buffers may be reused.
    """
    mapped = jax.pmap(
      function,
      axis_name=_AXIS,
      devices=self._devices,
      donate_argnums=(0,) if donate else (),
    )
    return _compile_at_first_call(mapped, deterministic)

  def put_state(self, state: Tree, by_tower: Tree) -> Tree:
    """Spreads a canonical tree; `by_tower` marks the leaves [T, ...]."""

    def put(x: np.ndarray, has_towers: bool) -> jax.Array:
      x = np.asarray(x)
      local = x.shape[1:] if has_towers else x.shape
      shape = (self.num_devices, *((1,) if has_towers else ()), *local)

      def shard(position: tuple[slice, ...]) -> np.ndarray:
        tower = position[0].start % self.towers.count
        return x[None, tower : tower + 1] if has_towers else x[None]

      return jax.make_array_from_callback(shape, self._sharding, shard)

    return jax.tree.map(put, state, by_tower)

  def get_state(self, state: Tree, by_tower: Tree) -> Tree:
    """Returns the canonical tree as numpy arrays that own their memory."""
    if not self._has_all_towers:
      state = self._meet(state, by_tower)
      by_tower = jax.tree.map(lambda _: False, by_tower)

    def get(x: jax.Array, has_towers: bool) -> np.ndarray:
      # Shards, not x[0]: indexing would gather across devices.
      copies = self.towers.count if has_towers else 1
      shards = [np.asarray(s.data)[0] for s in _shards(x)[:copies]]
      return np.concatenate(shards) if has_towers else np.array(shards[0])

    return jax.tree.map(get, state, by_tower)

  @property
  def _own_numbers(self) -> list[int]:
    """Numbers of this process's devices."""
    return [
      number
      for number, device in enumerate(self._devices)
      if device.process_index == jax.process_index()
    ]

  @property
  def _has_all_towers(self) -> bool:
    own = {number % self.towers.count for number in self._own_numbers}
    return len(own) == self.towers.count

  def _meet(self, state: Tree, by_tower: Tree) -> Tree:
    """Returns a copy in which every device has all towers of each leaf."""

    def meet(x: jax.Array, has_towers: bool) -> jax.Array:
      if not has_towers:
        return x
      groups = self.towers.groups
      return lax.all_gather(
        x, _AXIS, axis=0, tiled=True, axis_index_groups=groups
      )

    def program(state: Tree) -> Tree:
      return jax.tree.map(meet, state, by_tower)

    return jax.pmap(program, axis_name=_AXIS, devices=self._devices)(state)

  @property
  def _own_shards(self) -> range:
    """Shards of the batch that this process's devices work on."""
    own = [number // self.towers.count for number in self._own_numbers]
    return range(own[0], own[-1] + 1)

  def share(self, batch_size: int) -> slice:
    """Returns which examples of a global batch this process must read."""
    size, own = batch_size // self.num_data_shards, self._own_shards
    return slice(own.start * size, own.stop * size)

  def put_batch(self, batch: Tree) -> Tree:
    """Puts this process's share of [B, ...] on devices [T * D, B / D, ...]."""
    own = self._own_shards

    def put(x: np.ndarray) -> jax.Array:
      shards = x.reshape(len(own), -1, *x.shape[1:])

      def shard(position: tuple[slice, ...]) -> np.ndarray:
        number = position[0].start // self.towers.count - own.start
        return shards[number : number + 1]

      shape = (self.num_devices, *shards.shape[1:])
      return jax.make_array_from_callback(shape, self._sharding, shard)

    return jax.tree.map(put, batch)

  def get(self, tree: Tree) -> Tree:
    """Returns values that are the same on all devices, as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(_shards(x)[0].data)[0], tree)

  def get_batch(self, tree: Tree) -> Tree:
    """Returns values of each example as numpy arrays [B, ...].

    All towers of a shard hold the same values, so the first one is read.
    """

    def get(x: jax.Array) -> np.ndarray:
      first = _shards(x)[:: self.towers.count]
      return np.concatenate([np.asarray(s.data)[0] for s in first])

    return jax.tree.map(get, tree)

  def sum_data_shards(self, tree: Tree) -> Tree:
    """Returns the sums over the shards of the batch (inside the program)."""
    return lax.psum(tree, _AXIS, axis_index_groups=self._data_groups)

  def sum_gradients(self, gradients: Tree, by_tower: Tree) -> Tree:
    """Returns the sums over devices that hold a copy (inside the program).

    A tower's parameters are copied on its data group, the head's on all
    devices. The part of a gradient that comes from other towers has already
    arrived through the transpose of `gather`.
    """

    def total(gradient: jax.Array, has_towers: bool) -> jax.Array:
      groups = self._data_groups if has_towers else None
      return lax.psum(gradient, _AXIS, axis_index_groups=groups)

    return jax.tree.map(total, gradients, by_tower)

  def squared_norms(self, tree: Tree, by_tower: Tree) -> Tree:
    """Returns each leaf's squared L2 norm, over all towers (in the program).

    Squares of tower-wise leaves are summed over the towers, those of the head
    are counted once.
    """
    leaves, structure = jax.tree.flatten(tree)
    own = jnp.stack([jnp.sum(jnp.square(x)) for x in leaves])
    total = lax.psum(own, _AXIS, axis_index_groups=self.towers.groups)
    has_towers = np.array(jax.tree.leaves(by_tower))
    return structure.unflatten(jnp.where(has_towers, total, own))

  def any(self, flag: jax.Array) -> jax.Array:
    """Returns whether `flag` is true on any device (inside the program)."""
    return lax.pmax(flag.astype(jnp.int32), _AXIS) > 0


Plan = OneDevice | ManyDevices


def _shards(x: jax.Array) -> list[Any]:
  return sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)


def _compile_at_first_call(mapped: Any, deterministic: bool) -> Callable:
  """Returns a function that compiles for each new shape of a batch."""
  programs = {}

  def call(*args: Tree) -> Tree:
    # The first argument, parameters or a state, always has the same shapes.
    shapes = tuple(x.shape for x in jax.tree.leaves(args[1:]))
    if shapes not in programs:
      options = compiler_options(deterministic)
      lowered = mapped.lower(*args)
      programs[shapes] = lowered.compile(compiler_options=options)
    return programs[shapes](*args)

  return call


def compiler_options(deterministic: bool) -> dict[str, Any]:
  """Returns the options with which XLA compiles our programs.

  Args:
    deterministic: Whether a GPU must give the same bits each time.
  """
  options = {
    'cpu': {
      # Makes convolutions, their gradients and sums several times as fast.
      'xla_cpu_experimental_ynn_fusion_type': ','.join(LIBRARY_FUSIONS),
      # This pass would drop the barriers of layers._stored before fusion.
      'xla_disable_hlo_passes': 'cse_barrier_expander',
    },
    'gpu': {'xla_gpu_deterministic_ops': True} if deterministic else {},
  }.get(jax.default_backend(), {})
  return _usable(options)


def _usable(options: dict[str, Any]) -> dict[str, Any]:
  """Drops options that XLA_FLAGS already sets or that this XLA lacks."""
  flags = os.environ.get('XLA_FLAGS', '')
  return {
    name: value
    for name, value in options.items()
    if name not in flags and _is_known(name, value)
  }


@functools.cache
def _is_known(name: str, value: Any) -> bool:
  """Returns whether this XLA takes the option, and warns if not."""
  try:
    jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0]
    logging.warning('%s=%s is left out: %s', name, value, reason)
    return False
  return True


def make_plan(num_towers: int, num_devices: int) -> Plan:
  """Chooses how to spread the work over the visible devices.

  Args:
    num_towers: Towers of the network, T.
    num_devices: Number of visible devices to use, 0 for all.

  Raises:
    UserError: If the towers do not divide the devices.
  """
  devices = jax.devices()
  if not 0 <= num_devices <= len(devices):
    raise errors.UserError(
      f'num_devices={num_devices} but {len(devices)} are visible: give a '
      f'number from 1 to {len(devices)}, or 0 for all.'
    )
  _check_processes(devices, num_devices, num_towers)
  devices = devices[: num_devices or len(devices)]
  if len(devices) == 1:
    return OneDevice(devices[0], num_towers)
  if len(devices) % num_towers:
    raise errors.UserError(
      f'{len(devices)} devices cannot hold model.towers={num_towers} evenly: '
      f'set --config.num_devices to 1 or to a multiple of {num_towers}.'
    )
  return ManyDevices(devices, num_towers)


def _check_processes(
  devices: list[jax.Device], num_devices: int, num_towers: int
) -> None:
  """Checks that all processes hold whole sets of towers, or parts of one."""
  if jax.process_count() == 1:
    return
  if num_devices not in (0, len(devices)):
    raise errors.UserError(
      f'num_devices={num_devices} but {jax.process_count()} processes have '
      f'{len(devices)}: give 0, and fewer devices to each process.'
    )
  each = collections.Counter(d.process_index for d in devices)
  count = each[0]
  fits = count % num_towers == 0 or num_towers % count == 0
  if set(each.values()) != {count} or not fits:
    raise errors.UserError(
      f'processes with {sorted(each.values())} devices do not share '
      f'model.towers={num_towers} evenly: give each as many, a multiple or a '
      'divisor of the towers.'
    )


def check_batch_size(
  plan: Plan, batch_size: int, accumulate_steps: int = 1
) -> None:
  """Raises UserError if a batch does not divide into shards and parts."""
  shards = plan.num_data_shards
  if batch_size % (shards * accumulate_steps):
    parts = f', accumulate_steps={accumulate_steps} parts each'
    raise errors.UserError(
      f'batch_size={batch_size} does not divide into {shards} shards on '
      f'{plan.num_devices} devices{parts if accumulate_steps > 1 else ""}: '
      f'give a multiple of {shards * accumulate_steps}.'
    )
