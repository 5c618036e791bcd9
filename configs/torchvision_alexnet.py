r"""AlexNet as torchvision has it: one column, no LRN, 61,100,840 parameters.

    python main.py --config=configs/torchvision_alexnet.py \
        --workdir=runs/torchvision_alexnet

Expected on ILSVRC-2012 validation with the centre patch: top-1 error 0.4348,
top-5 error 0.2093 (TV: accuracies of 56.522 and 79.066 %). Not run by us: no
ImageNet at hand. The released weights can be imported, see
`alexnet_jax.tools.import_weights`.

The widths are those of "One weird trick" (Krizhevsky, 2014); dropout is
inverted and comes before fc6 and fc7. As TV trains it: 90 epochs in batches of
256, a rate of .01 that drops every 30, weight decay .0001, inputs divided by
the channels' standard deviations. Unlike it: crops of 224 out of 256 pixels,
not of random sizes; the training set's mean image; no decay of biases; He's
initialisation.
"""

import ml_collections

from configs import alexnet

# Of ImageNet's red, green and blue, 0-255 (TV, FB).
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_WIDTHS = {
  'conv1': 64,
  'conv2': 192,
  'conv3': 384,
  'conv4': 256,
  'conv5': 256,
  'fc6': 4096,
  'fc7': 4096,
}


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """TV torchvision/models/alexnet.py and references/classification."""
  config = alexnet.get_config(data)
  model = config.model
  model.towers, model.init, model.inverted_dropout = 1, 'he', True
  for layer, features in _WIDTHS.items():
    model[layer].update({'features': features, 'init_bias': 0.0})
  if model.conv1.kernel == 11:  # no stem for small pictures
    model.conv1.padding = (2, 2)
  model.conv1.after = model.conv2.after = ('act', 'max_pool')
  model.conv5.after = ('act', 'max_pool', 'dropout')
  model.fc6.after, model.fc7.after = ('act', 'dropout'), ('act',)
  config.data.scale = STD
  config.data.color_noise = 'none'
  config.batch_size = 256
  config.optimizer.weight_decay = 0.0001
  config.schedule.name = 'epochs'
  config.schedule.drops = ((30, 0.1), (60, 0.1))
  return config
