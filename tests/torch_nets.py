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


class VGG(nn.Module):
  """The network of TV torchvision/models/vgg.py, without dropout."""

  def __init__(self, convs, width, dense, side, batch_norm, classes=10):
    super().__init__()
    layers, inputs = [], 3
    for stage, count in enumerate(convs):
      for _ in range(count):
        features = width * min(2**stage, 8)
        layers.append(nn.Conv2d(inputs, features, 3, padding=1))
        layers += [nn.BatchNorm2d(features)] if batch_norm else []
        layers.append(nn.ReLU())
        inputs = features
      layers.append(nn.MaxPool2d(2))
    self.features = nn.Sequential(*layers)
    layers, inputs = [], inputs * (side >> len(convs)) ** 2
    for features in dense:
      layers += [nn.Linear(inputs, features), nn.ReLU(), nn.Identity()]
      inputs = features
    self.classifier = nn.Sequential(*layers, nn.Linear(inputs, classes))

  def forward(self, x):
    return self.classifier(self.features(x).flatten(1))


class ResidualBlock(nn.Module):
  """The blocks of TV torchvision/models/resnet.py, or shortcut 'A'."""

  def __init__(self, inputs, width, stride, bottleneck, shortcut):
    super().__init__()
    rows = [(width, 3, stride), (width, 3, 1)]
    if bottleneck:
      rows = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
    self.count, self.stride, features = len(rows), stride, inputs
    for i, (outputs, kernel, step) in enumerate(rows, 1):
      conv = nn.Conv2d(features, outputs, kernel, step, kernel // 2, bias=False)
      setattr(self, f'conv{i}', conv)
      setattr(self, f'bn{i}', nn.BatchNorm2d(outputs))
      features = outputs
    self.more = features - inputs
    if (self.more or stride > 1) and shortcut == 'B':
      conv = nn.Conv2d(inputs, features, 1, stride, bias=False)
      self.downsample = nn.Sequential(conv, nn.BatchNorm2d(features))
    else:
      self.downsample = self.pad

  def pad(self, x):
    x = x[..., :: self.stride, :: self.stride]
    return nn.functional.pad(x, (0, 0, 0, 0, 0, self.more))

  def forward(self, x):
    y = x
    for i in range(1, self.count + 1):
      y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
      y = y.relu() if i < self.count else y
    return (y + self.downsample(x)).relu()


class ResNet(nn.Module):
  """The network of TV torchvision/models/resnet.py, or the one for CIFAR."""

  def __init__(self, blocks, width, bottleneck, shortcut, stem, classes=10):
    super().__init__()
    large = stem == 'imagenet'
    kernel, stride = (7, 2) if large else (3, 1)
    self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
    self.count, inputs = len(blocks), width
    for stage, count in enumerate(blocks):
      layer, features = [], width * 2**stage
      for i in range(count):
        step = 2 if stage and not i else 1
        layer.append(
          ResidualBlock(inputs, features, step, bottleneck, shortcut)
        )
        inputs = features * (4 if bottleneck else 1)
      setattr(self, f'layer{stage + 1}', nn.Sequential(*layer))
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.maxpool(self.bn1(self.conv1(x)).relu())
    for stage in range(1, self.count + 1):
      x = getattr(self, f'layer{stage}')(x)
    return self.fc(x.mean((2, 3)))


class SamePadding(nn.Module):
  """TensorFlow's padding: the odd pixel is at the right and the bottom."""

  def __init__(self, kernel, stride):
    super().__init__()
    self.kernel, self.stride = kernel, stride

  def forward(self, x):
    total = max(self.kernel - self.stride + -x.shape[-1] % self.stride, 0)
    low = total // 2
    return nn.functional.pad(x, (low, total - low, low, total - low))


def _conv_norm(inputs, outputs, kernel, stride, groups, epsilon, same, act):
  """Returns torchvision's Conv2dNormActivation, with TensorFlow's padding."""
  options = {'padding': 0 if same else kernel // 2, 'groups': groups}
  conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False, **options)
  if same:
    padding = SamePadding(kernel, stride)
    conv.register_forward_pre_hook(lambda _, inputs: padding(*inputs))
  norm = nn.BatchNorm2d(outputs, eps=epsilon)
  return nn.Sequential(conv, norm, *([nn.SiLU()] if act else []))


class SqueezeExcitation(nn.Module):
  """The part of this name of torchvision/ops/misc.py."""

  def __init__(self, features, squeezed):
    super().__init__()
    self.fc1 = nn.Conv2d(features, squeezed, 1)
    self.fc2 = nn.Conv2d(squeezed, features, 1)

  def forward(self, x):
    y = nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
    return x * self.fc2(y).sigmoid()


class MBConv(nn.Module):
  """The block of TV torchvision/models/efficientnet.py."""

  def __init__(self, inputs, row, epsilon, same):
    super().__init__()
    expansion, kernel, stride, outputs = row
    wide, rest = inputs * expansion, (epsilon, same)
    self.is_residual = stride == 1 and inputs == outputs
    expand = [_conv_norm(inputs, wide, 1, 1, 1, *rest, True)]
    self.block = nn.Sequential(
      *(expand if expansion > 1 else []),
      _conv_norm(wide, wide, kernel, stride, wide, *rest, True),
      SqueezeExcitation(wide, max(1, inputs // 4)),
      _conv_norm(wide, outputs, 1, 1, 1, *rest, False),
    )

  def forward(self, x):
    return x + self.block(x) if self.is_residual else self.block(x)


class EfficientNet(nn.Module):
  """The network of TV torchvision/models/efficientnet.py, without dropout."""

  def __init__(self, stem, stages, top, epsilon, same, classes=10):
    super().__init__()
    rest, inputs = (epsilon, same), stem
    features = [_conv_norm(3, stem, 3, 2, 1, *rest, True)]
    for expansion, kernel, stride, outputs, count in stages:
      stage = []
      for i in range(count):
        row = (expansion, kernel, 1 if i else stride, outputs)
        stage.append(MBConv(inputs, row, *rest))
        inputs = outputs
      features.append(nn.Sequential(*stage))
    features.append(_conv_norm(inputs, top, 1, 1, 1, *rest, True))
    self.features = nn.Sequential(*features)
    self.classifier = nn.Sequential(nn.Identity(), nn.Linear(top, classes))

  def forward(self, x):
    return self.classifier(self.features(x).mean((2, 3)))


def randomize(net, seed=0):
  """Draws weights with which every layer and every response norm matters."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in net.parameters():
      fan_in = math.prod(parameter.shape[1:])
      std = math.sqrt(2 / fan_in) if parameter.ndim > 1 else 0.1
      parameter.normal_(0, std, generator=generator)
    for module in net.modules():
      if isinstance(module, nn.BatchNorm2d):
        module.running_mean.normal_(0, 0.2, generator=generator)
        for positive in (module.weight, module.running_var):
          positive.uniform_(0.5, 1.5, generator=generator)
  return net.eval()


def log_probabilities(net, images):
  """Returns log-probabilities of images [N, 256, 256, 3], in float64."""
  with torch.no_grad():
    logits = net.double()(net.inputs(torch.from_numpy(images)))
  return logits.log_softmax(1).numpy()
