"""Every field that a config has, and what follows from the choice of data."""

import ml_collections

from alexnet_jax import errors
from alexnet_jax.data import shapes

# Number of classes and native size, where asking TFDS would be slow.
_KNOWN = {
  'imagenet2012': (1000, None),
  'cifar10': (10, 32),
  'shapes': (len(shapes.CLASS_NAMES), shapes.SIZE),
}


def base() -> ml_collections.ConfigDict:
  """All fields but the layers, with values that the recipes overwrite."""
  config = ml_collections.ConfigDict()
  # Keys every random draw of the run, together with its purpose.
  config.seed = 0
  # WORKDIR or WORKDIR@STEP, to start from its weights and preprocessing.
  config.init_from = ''
  # Its layers to draw anew, as 'fc7'; the head is where classes differ.
  config.init_fresh = ''
  # Examples of a global batch, over all devices.
  config.batch_size = 128
  config.num_epochs = 90.0
  # More than 0 overrides num_epochs.
  config.train_steps = 0
  # Ends a run early, once the training error since the last log is below.
  config.stop_at_train_error = 0.0
  # Steps of more than 0 override epochs; with both 0, only the last step
  # counts, which always does.
  config.log_every_steps = 100
  config.log_every_epochs = 1.0
  config.eval_every_steps = 0
  config.eval_every_epochs = 1.0
  config.checkpoint_every_steps = 0
  config.checkpoint_every_epochs = 1.0
  # The oldest checkpoints go first.
  config.keep_checkpoints = 3
  # How many of the visible devices to use; 0 for all.
  config.num_devices = 0
  # More than 0: writes a trace of that many steps for TensorBoard.
  config.profile_steps = 0
  # First looks whether the network learns 32 images, see alexnet_jax/checks.py.
  config.checks = False
  # On GPUs: the same bits at every run, at some cost in speed.
  config.deterministic = False

  config.data = ml_collections.ConfigDict()
  # See alexnet_jax/data/sources.py.
  config.data.name = ''
  # Root of prepared sets.
  config.data.dir = 'data/'
  # Where TFDS keeps its own copies; '' for TFDS's default.
  config.data.tfds_dir = ''
  # Directory of the ILSVRC tars or of Kaggle's ILSVRC/.
  config.data.manual_dir = ''
  # Sides of stored images and of the network's input, in pixels.
  config.data.image_size = 256
  config.data.crop_size = 224
  # More than 0: trains on so many of the images, the same for all seeds; mean
  # image and colour components stay those of all.
  config.data.train_examples = 0
  # Whether training crops lie anywhere, or in the centre.
  config.data.random_crop = True
  # Whether half of the training images are mirrored.
  config.data.flip = True
  # What inputs (0-255, less the mean image) are divided by: a number, or three
  # (red, green, blue).
  config.data.scale = 1.0
  # 'paper', 'source' or 'none', see alexnet_jax/data/augment.py.
  config.data.color_noise = 'none'
  # Epochs after which colour noise stops; 0 for the whole run.
  config.data.color_noise_epochs = 0.0
  # Threads that read and decode; 0 for one a core. Changes no batch.
  config.data.workers = 0

  config.model = ml_collections.ConfigDict()
  # Columns that meet where a layer's `gather` says so.
  config.model.towers = 1
  config.model.num_classes = 1000
  # A name of ACTIVATIONS in alexnet_jax/models/alexnet.py.
  config.model.activation = 'relu'
  # 'normal' with each layer's init_std, or 'he' (variance 2 / fan-in).
  config.model.init = 'normal'
  # Of activations and products; parameters are float32.
  config.model.dtype = 'float32'
  # Layers and operations to leave out, as 'lrn,spatial_norm' or 'conv4'.
  config.model.omit = ''
  # Probability that dropout keeps a unit (paper section 4.2).
  config.model.keep = 0.5
  # Whether training divides kept units by `keep`, as in Caffe and PyTorch, or
  # evaluation multiplies all units by it, as in 2012.
  config.model.inverted_dropout = False
  # Overlapping pooling (paper section 3.4).
  config.model.pool = {'size': 3, 'stride': 2, 'ceil': False}
  # Across channels (paper section 3.3).
  config.model.lrn = {
    'n': 5,
    'k': 2.0,
    'alpha': 1e-4,
    'beta': 0.75,
    'alpha_over_n': False,
    # Whether windows reach into the next tower, as in Caffe.
    'across_towers': False,
  }
  # Within a map (cuda-convnet's rnorm).
  config.model.spatial_norm = {'size': 5, 'k': 1.0, 'scale': 1e-3, 'beta': 0.75}
  # Names of the layers in order; each has a row, see models/alexnet.py.
  config.model.layers = ()

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.learning_rate = 0.01
  # The biases' rate over the weights'.
  config.optimizer.bias_rate_multiplier = 1.0
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 0.0005
  # Factors of rates: by layer ('conv1'), or of its weights or biases alone
  # ('conv1/kernel', 'conv1/bias'), on top of the layer's. A rate of 0 freezes.
  config.optimizer.rate_multipliers = {}
  # Factors of weight_decay by layer.
  config.optimizer.decay_multipliers = {}

  config.schedule = ml_collections.ConfigDict()
  # 'epochs', 'four_step' or 'plateau', see alexnet_jax/optim.py.
  config.schedule.name = 'epochs'
  # 'epochs': pairs (epoch, factor); from each epoch on, its factor applies too.
  config.schedule.drops = ()
  # Whether these are the biases' drops as well; if not, bias_drops are.
  config.schedule.biases_drop_alike = True
  config.schedule.bias_drops = ()
  # Further pairs (epoch, factor), by the same names as rate_multipliers.
  config.schedule.layer_drops = {}
  # 'four_step': first rate over last.
  config.schedule.total_factor = 250.0
  # 'plateau': evaluations without an improvement of min_delta before a drop.
  config.schedule.patience = 3
  config.schedule.min_delta = 0.001

  config.eval = ml_collections.ConfigDict()
  # 1 (centre) or 10 (corners and centre, mirrored; softmax averaged).
  config.eval.views = 1
  # For --mode=eval; in training it is always validation.
  config.eval.split = 'validation'
  # Which checkpoint to evaluate; 0 for the newest.
  config.eval.step = 0
  return config


def conv(features: int, kernel: int, **fields) -> ml_collections.ConfigDict:
  """A row for a convolution with `features` maps a tower, then activation."""
  return ml_collections.ConfigDict(
    {
      'kind': 'conv',
      'features': features,
      'kernel': kernel,
      'stride': 1,
      'padding': (0, 0),
      'gather': False,
      'init_std': 0.01,
      'init_bias': 0.0,
      'after': ('act',),
    }
    | fields
  )


def local(features: int, kernel: int, **fields) -> ml_collections.ConfigDict:
  """A row for a convolution without weight sharing."""
  return conv(features, kernel, kind='local', **fields)


def dense(features: int, **fields) -> ml_collections.ConfigDict:
  """A row for a fully-connected layer of `features` units a tower."""
  return ml_collections.ConfigDict(
    {
      'kind': 'dense',
      'features': features,
      'gather': True,
      'init_std': 0.01,
      'init_bias': 0.0,
      'after': ('act',),
    }
    | fields
  )


def head(**fields) -> ml_collections.ConfigDict:
  """A row for the softmax's inputs."""
  return ml_collections.ConfigDict(
    {
      'kind': 'head',
      'gather': True,
      'init_std': 0.01,
      'init_bias': 0.0,
      'after': (),
    }
    | fields
  )


def set_layers(model: ml_collections.ConfigDict, **rows) -> None:
  """Makes `rows` the network's layers, in order."""
  model.layers = tuple(rows)
  model.update(rows)


def set_multipliers(config: ml_collections.ConfigDict) -> None:
  """Gives every layer factors of rate and decay, 1 where none was set."""
  for factors in (
    config.optimizer.rate_multipliers,
    config.optimizer.decay_multipliers,
  ):
    factors.update({n: factors.get(n, 1.0) for n in config.model.layers})


def for_data(config: ml_collections.ConfigDict, name: str) -> None:
  """Sets what follows from the data: classes, sizes, and a stem that fits.

  Crops are 7/8 of the image, as the paper's 224 of 256.
  """
  count, native_size = _describe(name)
  size = min(native_size or 256, 256)
  config.data.name = name
  config.data.image_size = size
  config.data.crop_size = size * 7 // 8
  config.model.num_classes = count
  if size <= 64 and config.model.conv1.stride > 1:
    config.model.conv1.update({'kernel': 5, 'stride': 1, 'padding': (2, 2)})


def num_classes(name: str) -> int:
  """Of the data of that name."""
  count, _ = _describe(name)
  return count


def _describe(name: str) -> tuple[int, int | None]:
  if name in _KNOWN:
    return _KNOWN[name]
  if not name:
    raise errors.UserError(
      'the config names no data after its colon; give shapes, cifar10, '
      'imagenet2012, folder=PATH or any TFDS name.'
    )
  from alexnet_jax.data import sources  # imports TensorFlow: slow

  return sources.describe(name)
