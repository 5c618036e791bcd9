r"""AlexNet at half its width, on pictures of half its size: for a CPU.

    python main.py --config=configs/alexnet_half.py:folder=/my/pictures \
        --workdir=runs/half

The network is #145 of the 2012 source, `configs/alexnet_2012.py`, with half as
many maps and units in every layer and crops of 112 out of 128 pixels, at a
sixteenth of the multiply-adds. It has He's initialisation and inputs of about
unit variance in place of the paper's sigma .01 and biases of 1, which need many
more steps to leave chance. The schedule is for some 10,000 pictures.

Expected on Imagenette's 9,469 pictures: validation top-1 error 0.289 +- 0.005,
one view, three seeds (`experiments.ablation_pictures_half`). Time: 14 minutes
on one CPU core without AVX-512.
"""

import ml_collections

from configs import alexnet_2012


def get_config(data: str = 'imagenette') -> ml_collections.ConfigDict:
  """Returns #145 with half of its maps, units and pixels, for 16 epochs."""
  config = alexnet_2012.get_config(data)
  config.model.init = 'he'
  for name in ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7'):
    config.model[name].features //= 2
    config.model[name].init_bias = 0.0
  config.data.update({'image_size': 128, 'crop_size': 112, 'scale': 64.0})
  config.data.color_noise_epochs = 12.0
  config.num_epochs = 16.0
  config.optimizer.learning_rate = 0.005
  config.schedule.drops = ((1, 2.0), (10, 0.1), (14, 0.1))
  config.schedule.layer_drops = {}
  return config
