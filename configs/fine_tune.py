r"""A trained network learns other classes: `configs/fine_tune.py:RUN:DATA`.

    python main.py --workdir=runs/mine \
        --config=configs/fine_tune.py:runs/alexnet:folder=/my/pictures

RUN is a workdir, WORKDIR@STEP, WORKDIR@best, or pretrained:NAME for a network
that ships with the package; DATA as for every config. Network, update rule,
augmentation and preprocessing are RUN's. Its head is drawn anew where the
classes differ, and keeps RUN's rate of the head; all other layers start from
RUN's weights, each at a tenth of its rate in RUN. To freeze one:

    --config.optimizer.rate_multipliers.conv1=0

Expected: experiments/results/fine_tuning has what it gains from 50 pictures a
class. Twenty epochs, the last five at a tenth of the rates.
"""

import ml_collections

from alexnet_jax import config as config_lib
from alexnet_jax import errors, paths, trained
from alexnet_jax.workdir import files

_OF_THE_RUN = (
  'image_size',
  'crop_size',
  'random_crop',
  'flip',
  'scale',
  'color_noise',
)


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """A short run from the weights of another.

  Args:
    argument: RUN:DATA.

  Raises:
    UserError: where it is not of that form, or there is no such run or data.
  """
  run, _, data = argument.removeprefix(paths.PRETRAINED).partition(':')
  if argument.startswith(paths.PRETRAINED):
    run = paths.PRETRAINED + run
  directory, _ = trained.split_name(run)
  if not data:
    raise errors.UserError(
      f'configs/fine_tune.py:{argument} names no run and data; write '
      'configs/fine_tune.py:WORKDIR:DATA.'
    )
  stored = files.read_config(directory)
  config = config_lib.base()
  for name in ('batch_size', 'accumulate_steps', 'model', 'optimizer'):
    config[name] = stored[name]
  for name in _OF_THE_RUN:
    config.data[name] = stored.data[name]
  config.init_from = run
  config.data.name = data
  config.model.num_classes = config_lib.num_classes(data)
  config.optimizer.learning_rate *= 0.1
  config.optimizer.rate_multipliers[config.model.layers[-1]] *= 10.0
  config.num_epochs = 20.0
  config.schedule.drops = ((15, 0.1),)
  return config
