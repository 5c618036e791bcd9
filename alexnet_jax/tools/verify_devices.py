"""Checks that all devices train the same network as one device does.

    python -m alexnet_jax.tools.verify_devices

Trains ten steps of the paper's two towers, narrow, on one device and on all
(two towers times shards of the batch), on pictures drawn in memory. Prints what
differs and the steps a second of both. The exit code is 1 if they do not agree.
"""

import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import command_line, metrics, parallel, train_step
from alexnet_jax import config as config_lib
from alexnet_jax import run as run_lib
from alexnet_jax.data import pipeline, preprocessing
from alexnet_jax.tools import tables

_STEPS, _TIMED_STEPS = 10, 20
_BATCH, _SIZE, _CLASSES = 32, 32, 10
# Largest relative differences that pass for rounding. 2, 4 and 8 virtual CPU
# devices gave at most 2e-7, 5e-7, 2e-7, 1e-6 and 7e-6. Others may round more:
# weights changed at random by 1e-5 of their size gave up to 3e-6, 1e-2, 1e-4,
# 5e-3 and 1e-2, as gradients jump where an input crosses ReLU's kink.
# Gradients summed over the wrong devices differ by 0.5 and more.
_LIMITS = {
  'loss of the first step': 1e-5,
  'gradients of the first step': 0.05,
  'losses of all steps': 1e-3,
  'gradient norms of all steps': 0.05,
  'changes of the parameters': 0.05,
}


def create_config(devices: int, batch_size: int) -> ConfigDict:
  """Returns the paper's two towers, narrow, for pictures of 32 pixels."""
  config = config_lib.base()
  config.update(num_devices=devices, batch_size=batch_size)
  config.optimizer.learning_rate = 0.001  # at 0.01, rounding errors grow fast
  config.data.update(image_size=_SIZE, crop_size=_SIZE, color_noise='paper')
  config.model.update(towers=2, num_classes=_CLASSES, init='he')
  pooled = {'padding': (2, 2), 'after': ('act', 'lrn', 'max_pool')}
  padded, dropped = {'padding': (1, 1)}, {'after': ('act', 'dropout')}
  config_lib.set_layers(
    config.model,
    conv1=config_lib.conv(16, 5, **pooled),
    conv2=config_lib.conv(24, 5, **pooled),
    conv3=config_lib.conv(32, 3, **padded, gather=True),
    conv4=config_lib.conv(32, 3, **padded),
    conv5=config_lib.conv(24, 3, **padded, after=('act', 'max_pool')),
    fc6=config_lib.dense(128, **dropped),
    fc7=config_lib.dense(128, **dropped),
    fc8=config_lib.head(),
  )
  config_lib.set_multipliers(config)
  return config


def _draw_batch(step: int, batch_size: int) -> pipeline.Batch:
  """Returns noise on a grey that tells the class."""
  rng = np.random.default_rng(step)
  labels = rng.integers(0, _CLASSES, batch_size, np.int32)
  images = rng.integers(0, 128, (batch_size, _SIZE, _SIZE, 3))
  return {
    'image': (images + 12 * labels[:, None, None, None]).astype(np.uint8),
    'label': labels,
    'index': (step * batch_size + np.arange(batch_size)).astype(np.uint32),
  }


# By default, GPUs and TPUs round the factors of products to fewer bits.
@jax.default_matmul_precision('highest')
def train(config: ConfigDict) -> tuple[parallel.Plan, tuple, float]:
  """Returns the plan, the numbers to compare, and the steps a second."""
  inputs = preprocessing.Preprocessing(
    mean_image=np.full((_SIZE, _SIZE, 3), 127.5, np.float32),
    eigenvalues=np.array([9e3, 4e2, 9e1], np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
    scale=np.float32(64),
    crop_size=np.int32(_SIZE),
  )
  run = run_lib.build_run(config, inputs, _STEPS * config.batch_size)
  scale = run.put_everywhere(np.float32(1))
  initial = train_step.create_train_state(config)
  state, states, rows, times = run.put_state(initial), [], [], []
  for step in range(_STEPS + _TIMED_STEPS):
    batch = run.plan.put_batch(_draw_batch(step, config.batch_size))
    start = time.perf_counter()
    state, sums = jax.block_until_ready(run.train_step(state, batch, scale))
    times.append(time.perf_counter() - start)
    if step < _STEPS:
      rows.append(metrics.means(run.plan.get(sums)))
      states.append(run.get_state(state))
  losses, norms = ([r[n] for r in rows] for n in ('loss', 'gradient_norm'))
  changes = jax.tree.map(np.subtract, states[-1].params, initial.params)
  # The first velocities are the gradients times the rate.
  compared = losses[0], states[0].opt_state, losses, norms, changes
  return run.plan, compared, float(1 / np.median(times[_STEPS:]))


def _difference(one: Any, many: Any) -> float:
  """Returns the largest |x - y| / |x| of the leaves, in L2 norms."""
  norm = np.linalg.norm
  each = jax.tree.map(lambda x, y: norm(x - y) / (norm(x) or 1), one, many)
  return float(np.max(jax.tree.leaves(each)))  # unlike max, it keeps NaN


def verify(num_devices: int) -> bool:
  """Compares several devices with one, prints, and returns if they agree."""
  batch_size = int(np.lcm(_BATCH, num_devices // 2))
  one, many = (train(create_config(n, batch_size)) for n in (1, num_devices))
  found = map(_difference, one[1], many[1])
  rows = [(*row, d) for row, d in zip(_LIMITS.items(), found, strict=True)]
  far = [name for name, limit, d in rows if not d <= limit]  # NaN is too far
  head = ('devices', 'towers x data', 'first loss', 'last loss', 'steps/s')
  print(tables.markdown(head, [_row(*one), _row(*many)]), end='\n\n')
  cells = ((name, f'{d:.0e}', f'{limit:.0e}') for name, limit, d in rows)
  print(tables.markdown(('relative difference', 'found', 'limit'), cells))
  verdict = f'do not agree: {", ".join(far)}.' if far else 'agree.'
  print(f'\nThe devices {verdict}')
  return not far


def _row(plan: parallel.Plan, compared: tuple, rate: float) -> tuple[str, ...]:
  layout = f'{plan.towers_per_example} x {plan.num_data_shards}'
  losses = (f'{compared[2][step]:.6f}' for step in (0, -1))
  return str(plan.num_devices), layout, *losses, f'{rate:.1f}'


def main(_) -> None:
  """Compares one device with all, or with all but one of an odd number."""
  command_line.set_up_jax()
  devices = jax.devices()
  count, kinds = len(devices), {device.device_kind for device in devices}
  print(f'{count} x {", ".join(sorted(kinds))}')
  if count == 1:
    print('There is nothing to compare.')
  elif count % 2:
    print(f'Two towers take an even number: {count - 1} are used.')
  if count > 1 and not verify(count // 2 * 2):
    sys.exit(1)


if __name__ == '__main__':
  command_line.run(main)
