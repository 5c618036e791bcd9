"""Every field that a config has, and what follows from the choice of data.

The recipes of configs/ start from `base`, give the network its layers and call
`for_data`.
"""

import ml_collections

from alexnet_jax import errors
from alexnet_jax.data import records, shapes, sources

# Classes and native size of sets that would be slow to ask TFDS for.
_KNOWN = {
  'imagenet2012': (1000, None),
  'cifar10': (10, 32),
  'mnist': (10, 28),
  'shapes': (len(shapes.CLASS_NAMES), shapes.SIZE),
}
_DATA_DIR = 'data/'


def base() -> ml_collections.ConfigDict:
  """Returns a config with all fields but the layers, set to their defaults."""
  config = ml_collections.ConfigDict()
  # Every random draw of the run depends on it and on the draw's purpose.
  config.seed = 0
  # WORKDIR, WORKDIR@STEP or WORKDIR@best of a run whose weights and
  # preprocessing are the start; '' for none.
  config.init_from = ''
  # Layers of that run to draw anew, as 'fc6,fc7'. The head is drawn anew if the
  # classes differ.
  config.init_fresh = ''
  # Examples of a step, over all devices.
  config.batch_size = 128
  # Parts of each step's examples that are worked on one after another, for
  # batches that do not fit into memory. Batch norm takes the moments of a part.
  config.accumulate_steps = 1
  config.num_epochs = 90.0
  # Fewest steps of what counts as an epoch, everywhere in a config and in the
  # metrics. A set that has fewer is gone through more than once in each.
  config.min_epoch_steps = 0
  # More than 0 overrides num_epochs.
  config.train_steps = 0
  # The run ends when the training error since the last log is below this.
  config.stop_at_train_error = 0.0
  # A number of steps above 0 replaces the epochs. With both 0, it happens only
  # after the last step.
  config.log_every_steps = 100
  config.log_every_epochs = 1.0
  config.eval_every_steps = 0
  config.eval_every_epochs = 1.0
  config.checkpoint_every_steps = 0
  config.checkpoint_every_epochs = 1.0
  # Longest time between two checkpoints, in minutes; 0 for no limit. A job that
  # ends before an epoch does makes progress all the same.
  config.checkpoint_every_minutes = 30.0
  # Newest checkpoints to keep.
  config.keep_checkpoints = 3
  # Whether the checkpoint of the lowest validation error is kept as well, under
  # the name WORKDIR@best. An evaluation that is as good as the best saves one.
  config.keep_best = True
  # Visible devices to use; 0 for all.
  config.num_devices = 0
  # Steps to trace for TensorBoard's profile plugin; 0 for none.
  config.profile_steps = 0
  # Whether a GPU gives the same bits in every run, at some cost in speed.
  config.deterministic = False

  config.data = ml_collections.ConfigDict()
  # See alexnet_jax/data/sources.py.
  config.data.name = ''
  # Root of prepared sets.
  config.data.dir = _DATA_DIR
  # Directory of TFDS's own copies; '' for TFDS's default.
  config.data.tfds_dir = ''
  # Directory of the ILSVRC tars or of Kaggle's ILSVRC/.
  config.data.manual_dir = ''
  # Sides of stored images and of the network's input, in pixels.
  config.data.image_size = 256
  config.data.crop_size = 224
  # 1 for grey pictures, whose three colours are the same.
  config.data.channels = 3
  # Pixels of the mean colour around the images that are cropped in training.
  config.data.pad = 0
  # Images to train on, the same ones for all seeds; 0 for all. Mean image and
  # colour components stay those of all images.
  config.data.train_examples = 0
  # Whether training crops lie anywhere in the image, or in its centre.
  config.data.random_crop = True
  # Whether half of the training images are mirrored.
  config.data.flip = True
  # Whether the mean image is subtracted.
  config.data.subtract_mean = True
  # Divisor of inputs (0-255, minus the mean image): a number, or three (red,
  # green, blue), as 58,57,57.
  config.data.scale = ml_collections.FieldReference(1.0, field_type=object)
  # 'paper', 'source' or 'none', see alexnet_jax/data/augment.py.
  config.data.color_noise = 'none'
  # Epochs after which colour noise stops; 0 for the whole run.
  config.data.color_noise_epochs = 0.0
  # Threads that read and decode; 0 for one a core. They change no batch.
  config.data.workers = 0

  config.model = ml_collections.ConfigDict()
  # A name of MODELS in alexnet_jax/models.
  config.model.name = 'alexnet'
  # Columns of the network; they meet where a layer has `gather`.
  config.model.towers = 1
  config.model.num_classes = 1000
  # A name of ACTIVATIONS in alexnet_jax/models/layers.py.
  config.model.activation = 'relu'
  # 'normal' with each layer's init_std, or 'he' (variance 2 / fan-in).
  config.model.init = 'normal'
  # Type of activations and products; parameters are float32.
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
  # Share of the old running moments that is kept; what is added to variances;
  # consecutive examples that share moments, 0 for the whole batch.
  config.model.batch_norm = {'momentum': 0.9, 'epsilon': 1e-5, 'group': 0}
  # Names of the layers in order; each has a row, see models/alexnet.py.
  config.model.layers = ()

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.learning_rate = 0.01
  # The biases' rate divided by the weights' rate.
  config.optimizer.bias_rate_multiplier = 1.0
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = False
  # Whether velocities have the rate in them, as in 2012 and in Caffe. Otherwise
  # weights move by rate times velocity, as in PyTorch.
  config.optimizer.rate_inside = True
  config.optimizer.weight_decay = 0.0005
  # Whether biases, and scales of batch normalisation, are decayed as well.
  config.optimizer.decay_biases = False
  # LARS: each array of weights or biases has its rate times this number, times
  # its norm over that of its gradient (see optim.lars_rates); 0 for no LARS.
  config.optimizer.lars_eta = 0.0
  # Factors of rates: by layer ('conv1'), or of its weights or biases alone
  # ('conv1/kernel', 'conv1/bias'), on top of the layer's. A rate of 0 freezes.
  # As a flag: --config.optimizer.rate_multipliers["conv1/kernel"]=0
  config.optimizer.rate_multipliers = {}
  # Share of each label that is spread evenly over all classes.
  config.optimizer.label_smoothing = 0.0
  # Factors of weight_decay, by the same names.
  config.optimizer.decay_multipliers = {}

  config.schedule = ml_collections.ConfigDict()
  # A form that lasts the whole run, one of FORMS below; 'epochs', which has
  # drops alone; or 'plateau', which has none.
  config.schedule.name = 'epochs'
  # Pairs (epoch, factor), on top of the form. The rate is multiplied by each
  # factor from its epoch on.
  config.schedule.drops = ()
  # For 'poly' and 'inverse': the exponent.
  config.schedule.power = 0.5
  # For 'linear', 'exp', 'dexp' and 'jdexp': the first rate divided by the last.
  config.schedule.total_factor = 250.0
  # For 'dexp' and 'jdexp': number of constant rates.
  config.schedule.levels = 4
  # Epochs in which the rate climbs in a straight line, from this share of the
  # first rate to all of it. The form is not moved: after the climb it goes on
  # where it would be without.
  config.schedule.warmup_epochs = 0.0
  config.schedule.warmup_start = 0.0
  # The same for the biases' rates. With the name '' they follow the weights'.
  config.schedule.biases = {
    'name': '',
    'drops': (),
    'total_factor': 10.0,
    'levels': 2,
    'power': 0.5,
  }
  # Further pairs (epoch, factor), by the same names as rate_multipliers.
  config.schedule.layer_drops = {}
  # For 'plateau': evaluations without an improvement of min_delta before a
  # drop.
  config.schedule.patience = 3
  config.schedule.min_delta = 0.001

  config.eval = ml_collections.ConfigDict()
  # 1 (centre) or 10 (corners and centre, mirrored; softmax averaged).
  config.eval.views = 1
  # For --mode=eval; in training it is always validation.
  config.eval.split = 'validation'
  # Which checkpoint to evaluate; 0 for the newest, -1 for the best.
  config.eval.step = 0
  return config


def conv(features: int, kernel: int, **fields) -> ml_collections.ConfigDict:
  """Returns a row for a convolution with `features` maps in each tower."""
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
      'keep': 0.0,  # of its dropout; 0 for model.keep
    }
    | fields
  )


def local(features: int, kernel: int, **fields) -> ml_collections.ConfigDict:
  """Returns a row for a convolution without weight sharing."""
  return conv(features, kernel, kind='local', **fields)


def dense(features: int, **fields) -> ml_collections.ConfigDict:
  """Returns a row for a dense layer with `features` units in each tower."""
  return ml_collections.ConfigDict(
    {
      'kind': 'dense',
      'features': features,
      'gather': True,
      'init_std': 0.01,
      'init_bias': 0.0,
      'after': ('act',),
      'keep': 0.0,
    }
    | fields
  )


def head(**fields) -> ml_collections.ConfigDict:
  """Returns a row for the layer that computes the logits."""
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
  """Makes `rows` the layers of the network, in order."""
  model.layers = tuple(rows)
  model.update(rows)


def set_multipliers(config: ml_collections.ConfigDict) -> None:
  """Sets the factors of rate and decay to 1 for layers that have none."""
  for factors in (
    config.optimizer.rate_multipliers,
    config.optimizer.decay_multipliers,
  ):
    factors.update({n: factors.get(n, 1.0) for n in config.model.layers})


def for_data(config: ml_collections.ConfigDict, name: str) -> None:
  """Sets what follows from the data: classes, image sizes and the stem.

  Crops are 7/8 of the image, like the paper's 224 of 256. Images of up to 64
  pixels get a conv1 of 5x5 filters at stride 1.

  Args:
    config: Config with its layers.
    name: Name of the data, see alexnet_jax/data/sources.py.
  """
  count, native_size = _describe(name)
  size = min(native_size or 256, 256)
  config.data.name = name
  config.data.image_size = size
  config.data.crop_size = size * 7 // 8
  config.model.num_classes = count
  if config.model.name != 'alexnet':
    return
  if size <= 64 and config.model.conv1.stride > 1:
    config.model.conv1.update({'kernel': 5, 'stride': 1, 'padding': (2, 2)})


def pad_crops(config: ml_collections.ConfigDict) -> None:
  """Makes training crops as large as the images, from 4 more pixels around.

  (Lee et al. 2014, as in section 4.2 of arXiv 1512.03385.)
  """
  config.data.crop_size = config.data.image_size
  config.data.pad = 4


def train_as_torchvision(config: ml_collections.ConfigDict) -> None:
  """Sets the recipe of TV references/classification, but for crops and rate."""
  scale_to_unit_variance(config)
  config.batch_size = 256
  config.optimizer.weight_decay = 1e-4
  config.optimizer.decay_biases = True
  config.optimizer.rate_inside = False
  config.schedule.drops = ((30, 0.1), (60, 0.1))


def scale_to_unit_variance(config: ml_collections.ConfigDict) -> None:
  """Divides inputs by ImageNet's standard deviations, as torchvision does."""
  config.data.scale = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def num_classes(name: str) -> int:
  """Returns the number of classes of the data of that name."""
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
  # A prepared set is enough: its pictures may be gone.
  prepared = records.open_prepared(_DATA_DIR, name)
  if prepared and 'train' in prepared.info['splits']:
    return len(prepared.class_names), prepared.info['native_size']
  return sources.describe(name)


# Fields of the machine, not of the run.
PLACES = (
  'num_devices',
  'data.dir',
  'data.tfds_dir',
  'data.manual_dir',
  'data.workers',
)
# Fields that no result depends on, except for rounding.
WITHOUT_EFFECT = (
  *PLACES,
  'checkpoint_every_epochs',
  'checkpoint_every_minutes',
  'checkpoint_every_steps',
  'keep_best',
  'keep_checkpoints',
  'profile_steps',
  'eval.split',
  'eval.step',
)
_LENGTHS = ('num_epochs', 'train_steps')
# Forms of a schedule that last the whole run, see alexnet_jax/optim.py.
FORMS = (
  'linear',
  'cosine',
  'poly',
  'inverse',
  'exp',
  'dexp',
  'jdexp',
)
# Fields that the rates of a schedule depend on.
_RATES_FOLLOW = dict.fromkeys(FORMS, _LENGTHS) | {
  'plateau': ('eval_every_epochs', 'eval_every_steps', 'eval.views'),
}
# Fields that --mode=eval may be given, beside all of `eval`.
OF_EVALUATION = ('batch_size', 'data.name', *PLACES)


def changes_nothing_done(name: str) -> bool:
  """Returns whether a finished run's result stays valid with another value.

  The length of a run counts as such a field: training checks it.

  Args:
    name: Name of a field, as 'data.dir'.
  """
  return name in (*WITHOUT_EFFECT, *_LENGTHS)


def is_resumable(name: str, *schedules: str) -> bool:
  """Returns whether a resumed run may have another value.

  Args:
    name: Name of a field, as 'data.dir'.
    *schedules: Names of the schedules of the run's weights and biases.
  """
  if any(name in _RATES_FOLLOW.get(schedule, ()) for schedule in schedules):
    return False
  is_later = '_every_' in name or name.startswith('eval.')
  return is_later or changes_nothing_done(name)


def is_evaluable(name: str) -> bool:
  """Returns whether --mode=eval may be given a value of this field."""
  return name in OF_EVALUATION or name.startswith('eval.')
