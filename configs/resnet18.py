"""ResNet-18: He, Zhang, Ren, Sun 2015, trained as `resnet50` is.

    python main.py --config=configs/resnet18.py --workdir=runs/resnet18
    python main.py --config=configs/resnet18.py:cifar10 --workdir=runs/r_cifar

Expected: no published number belongs to this recipe, for the reason that is
given in `resnet50`. Torchvision's errors are .302 / .109.

Time: not measured; a step is 2.5 times the multiply-adds of AlexNet's.
"""

import ml_collections

from configs import resnet50


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """Blocks of two layers in place of three."""
  return resnet50.get_config(data, 'resnet18')
