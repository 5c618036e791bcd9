"""The networks that weights are imported from, written in PyTorch."""

import math

import torch
from torch import nn

WIDTHS = (8, 12, 16, 12, 8, 32, 24)  # conv1 to fc7
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')


def narrow(config, widths=WIDTHS):
  """Returns the config with these widths, added over its towers."""
  config.model.num_classes = 10
  for layer, features in zip(LAYERS, widths, strict=True):
    config.model[layer].features = features // config.model.towers
  return config


class Torchvision(nn.Module):
  """The network of TV torchvision/models/alexnet.py."""

  def __init__(self, widths=WIDTHS, classes=10):
    super().__init__()
    a, b, c, d, e, f, g = widths
    self.features = nn.Sequential(
      *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
      *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
      *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
      *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
      *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
    self.classifier = nn.Sequential(
      *(nn.Dropout(), nn.Linear(36 * e, f), nn.ReLU()),
      *(nn.Dropout(), nn.Linear(f, g), nn.ReLU()),
      nn.Linear(g, classes),
    )

  def forward(self, x):
    return self.classifier(self.avgpool(self.features(x)).flatten(1))

  def inputs(self, images):
    """Returns inputs [N, 3, 224, 224] of images [N, 256, 256, 3]."""
    x = images.permute(0, 3, 1, 2)[..., 16:240, 16:240].double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (x - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Caffe(nn.Module):
  """The network of CAFFE bvlc_alexnet, or with `pool_first` of CaffeNet."""

  def __init__(self, pool_first, widths=WIDTHS, classes=10):
    super().__init__()
    a, b, c, d, e, f, g = widths
    self.conv1 = nn.Conv2d(3, a, 11, 4)
    self.conv2 = nn.Conv2d(a, b, 5, padding=2, groups=2)
    self.conv3 = nn.Conv2d(b, c, 3, padding=1)
    self.conv4 = nn.Conv2d(c, d, 3, padding=1, groups=2)
    self.conv5 = nn.Conv2d(d, e, 3, padding=1, groups=2)
    self.fc6 = nn.Linear(36 * e, f)
    self.fc7 = nn.Linear(f, g)
    self.fc8 = nn.Linear(g, classes)
    self.drop = nn.Dropout()
    self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    norm = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    order = (self.pool, norm) if pool_first else (norm, self.pool)
    self.after = nn.Sequential(*order)
    self.mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])
    self.mean = self.mean.view(3, 1, 1)

  def forward(self, x):
    x = self.after(self.conv1(x).relu())
    x = self.after(self.conv2(x).relu())
    x = self.conv4(self.conv3(x).relu()).relu()
    x = self.pool(self.conv5(x).relu()).flatten(1)
    x = self.drop(self.fc6(x).relu())
    return self.fc8(self.drop(self.fc7(x).relu()))

  def inputs(self, images):
    """Returns inputs [N, 3, 227, 227], BGR, of images [N, 256, 256, 3]."""
    x = images.permute(0, 3, 1, 2).flip(1).double() - self.mean
    return x[..., 14:241, 14:241]


def randomize(net, seed=0):
  """Draws weights with which every layer and every response norm matters."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in net.parameters():
      fan_in = math.prod(parameter.shape[1:])
      std = math.sqrt(2 / fan_in) if parameter.ndim > 1 else 0.1
      parameter.normal_(0, std, generator=generator)
  return net.eval()


def log_probabilities(net, images):
  """Returns log-probabilities of images [N, 256, 256, 3], in float64."""
  with torch.no_grad():
    logits = net.double()(net.inputs(torch.from_numpy(images)))
  return logits.log_softmax(1).numpy()
