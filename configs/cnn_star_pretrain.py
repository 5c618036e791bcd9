r"""The pretrained half of the paper's CNN*: six convolutional layers.

    python main.py --workdir=runs/cnn_star_pretrain \
        --config=configs/cnn_star_pretrain.py:folder=/my/fall2011

To be trained on all of ImageNet's Fall 2011 release (15 million images, 22,000
classes, paper section 6.2), which comes as a folder of class folders; then
`configs/cnn_star.py` fine-tunes it on ILSVRC-2012. No number was published for
it on that release. The same network on Fall 2009 (8.9 million images, 10,184
classes, a random half of the images for testing): top-1 error 0.674, top-5
error 0.409 (paper section 6.1). Not yet run by us: no ImageNet at hand.
"""

import ml_collections

from configs import alexnet_2012, common


def get_config(data: str = 'imagenet2012') -> ml_collections.ConfigDict:
  """`alexnet_2012` with conv6 over the last pool (CHM layers-146)."""
  config = alexnet_2012.get_config(data)
  model = config.model
  model.layers = (*model.layers[:5], 'conv6', *model.layers[5:])
  model.conv6 = common.conv(
    128, 3, padding=(1, 1), gather=True, init_std=0.03, init_bias=1.0
  )
  common.set_multipliers(config)
  return config
