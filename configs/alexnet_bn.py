r"""AlexNet-BN by LARS: batches of 512 to 32,768, as NVIDIA published them.

    python main.py --config=configs/alexnet_bn.py:8192 --workdir=runs/bn_8k
    python main.py --config=configs/alexnet_bn.py:32768:cifar10 \
        --workdir=runs/bn_cifar10

The argument is BATCH, DATA or BATCH:DATA; without BATCH it is 512. Network and
numbers are those of NVCaffe's models/alexnet_bn (`train_val2` and the solver
files). It is Caffe's AlexNet, `bvlc_alexnet`, with batch norm in place of LRN:
without scale and shift, before conv2 to conv5. Biases are decayed and start at
.01, or at .1 in fc6 and fc7. Inputs are divided by 256.

    solver      batch   rule  rate   warm-up (steps)  steps    parts
    solver        512   SGD    .08   none             250,000      1
    solver_8K   8,192   LARS   10    from 1 (600)      15,600      1
    solver_16k 16,384   LARS   24    from 1 (400)       7,800      2
    solver_32k 32,768   LARS   32    from 1 (400)       4,000      4

All have poly(2), momentum .9, decay .0005, and eta .001 with LARS. A part of
8,192 images is what the 8 GPUs hold at a time. There, batch norm takes the
moments of each GPU's own images; for that, with 8 GPUs, give
--config.model.batch_norm.group=1024. NVCaffe stores float16 from 8,192 on and
scales gradients by 1,000; --config.model.dtype=bfloat16 is the nearest here.
`solver_autolr` is LARS at 512, with a rate of 1.

Expected top-1 errors, centre patch, the mean of the last five epochs of 100
(arXiv 1708.03888 in the version of ICLR 2018; best rate in brackets):

    batch      SGD, no warm-up   LARS, warm-up of 5 epochs
       512     .398 (.02)        .398 (2)
     4,096     .411 (.18)        .396 (10)
     8,192     .420 (.30)        .399 (14)
    16,384                       .407 (23), flat from 13 to 22
    32,768                       .422 (22); .401 in 200 epochs

These rates are not the solver files': 14 and 10 at 8,192, 23 and 24 at 16,384,
22 and 32 at 32,768, .02 and .08 at 512. The text gives the baseline 128 epochs,
the table 100. The abstract of arXiv claims AlexNet up to 8K only. Logs of the
solver files' runs are not published. Not run by us: no ImageNet at hand.
"""

import ml_collections

from alexnet_jax import errors
from configs import bvlc_alexnet

_IMAGES = 1_281_167  # of ILSVRC-2012, on which lengths in steps were given
# Rate, steps of warm-up, steps, and parts of a batch, of the solver files.
_SOLVERS = {
  512: (0.08, 0, 250_000, 1),
  8192: (10.0, 600, 15_600, 1),
  16384: (24.0, 400, 7_800, 2),
  32768: (32.0, 400, 4_000, 4),
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """NVCaffe's train_val2.prototxt, and the solver file of a batch.

  Args:
    argument: BATCH, DATA or BATCH:DATA.

  Raises:
    UserError: If no solver file has that batch.
  """
  batch, _, data = argument.partition(':')
  if not batch.isdecimal():
    batch, data = '512', argument
  if int(batch) not in _SOLVERS:
    raise errors.UserError(
      f'configs/alexnet_bn.py:{batch} is no batch that was published: choose '
      f'from {", ".join(map(str, _SOLVERS))}, or give --config.batch_size.'
    )
  config = bvlc_alexnet.get_config(data or 'imagenet2012')
  _set_network(config.model)
  config.data.scale = 256.0
  config.optimizer.bias_rate_multiplier = 1.0
  config.optimizer.decay_biases = True
  config.schedule.update({'name': 'poly', 'power': 2.0, 'drops': ()})
  _set_batch(config, int(batch))
  return config


def _set_network(model: ml_collections.ConfigDict) -> None:
  for name in model.layers:
    is_large = name in ('fc6', 'fc7')
    model[name].init_std = 0.005 if is_large else 0.01
    model[name].init_bias = 0.1 if is_large else 0.01
  model.conv1.after = model.conv2.after = ('act', 'max_pool', 'batch_norm')
  model.conv3.after = model.conv4.after = ('act', 'batch_norm')
  model.batch_norm.epsilon = 1e-4


def _set_batch(config: ml_collections.ConfigDict, batch: int) -> None:
  rate, warmup_steps, steps, parts = _SOLVERS[batch]

  def epochs(steps: int) -> float:
    # Rounded down, for a part of a step counts as a whole one.
    return max(steps * batch / _IMAGES - 1e-9, 0.0)

  config.batch_size = batch
  config.accumulate_steps = parts
  config.num_epochs = epochs(steps)
  config.optimizer.learning_rate = rate
  if warmup_steps:  # by LARS, from a rate of 1 on
    config.optimizer.lars_eta = 0.001
    config.schedule.warmup_epochs = epochs(warmup_steps)
    config.schedule.warmup_start = 1 / rate
