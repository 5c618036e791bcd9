"""VGG-19: Simonyan and Zisserman 2014, net E, trained as `vgg16` is.

    python main.py --config=configs/vgg19.py --workdir=runs/vgg19

Expected: no published number belongs to this recipe, for the reasons that are
given in `vgg16`. Torchvision's errors are .276 / .091, the paper's .273 / .090.

Time: not measured; a step is 27 times the multiply-adds of AlexNet's.
"""

import ml_collections

from configs import vgg16


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """Three more layers than `vgg16`."""
  return vgg16.get_config(data, 'vgg19')
