r"""Makes a run of published weights, to evaluate, predict or fine-tune.

    python -m experiments.import_weights --architecture=torchvision \
        --weights=alexnet-owt-7be5be79.pth --workdir=runs/torchvision
    python -m experiments.import_weights --architecture=bvlc_alexnet \
        --weights=bvlc_alexnet.caffemodel --mean=imagenet_mean.binaryproto \
        --workdir=runs/bvlc_alexnet

Files are .safetensors, .pth (which needs PyTorch) or .caffemodel. The number of
classes follows from the file; 1000 are ImageNet's. Crops, means and scales are
the architecture's own; how pictures are scaled before that is this project's.
Then, for instance,

    python -m experiments.predict --workdir=runs/torchvision cat.jpg
    python main.py --mode=eval --workdir=runs/torchvision
"""

import pathlib

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.weights import caffe, pretrained
from configs import bvlc_alexnet, caffenet, torchvision_alexnet

# Name -> config, means of the channels (RGB), order that the network reads.
_ARCHITECTURES = {
  'torchvision': (torchvision_alexnet, torchvision_alexnet.MEAN, 'RGB'),
  'bvlc_alexnet': (bvlc_alexnet, pretrained.CAFFE_MEAN, 'BGR'),
  'caffenet': (caffenet, pretrained.CAFFE_MEAN, 'BGR'),
}
_ARCHITECTURE = flags.DEFINE_enum(
  'architecture', 'torchvision', list(_ARCHITECTURES), 'Whose network.'
)
_WEIGHTS = flags.DEFINE_string(
  'weights', None, 'A file: .safetensors, .pth or .caffemodel.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'A new directory.')
_MEAN = flags.DEFINE_string(
  'mean', None, "Caffe's mean image (.binaryproto), for means of channels."
)
_CLASS_NAMES = flags.DEFINE_string(
  'class_names', None, 'A file of names, one a line.'
)
_CHANNEL_ORDER = flags.DEFINE_enum(
  'channel_order',
  None,
  ['RGB', 'BGR'],
  "What the first layer reads, if not the file's or architecture's order.",
)
_DATA = flags.DEFINE_string(
  'data', 'imagenet2012', 'What evaluation reads, see alexnet_jax/data.'
)


def _check_flags() -> None:
  for flag in (_WEIGHTS, _WORKDIR):
    if not flag.value:
      raise errors.UserError(f'--{flag.name} is missing; give a path.')


def _read_names() -> list[str] | None:
  if not _CLASS_NAMES.value:
    return None
  try:
    return pathlib.Path(_CLASS_NAMES.value).read_text('utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'--class_names={_CLASS_NAMES.value} is no text in UTF-8; give another '
      'file.'
    ) from error


def _import(workdir: pathlib.Path) -> None:
  module, mean, order = _ARCHITECTURES[_ARCHITECTURE.value]
  config = module.get_config()
  config.data.name = _DATA.value
  path = _MEAN.value
  pretrained.import_run(
    pretrained.Architecture(config, mean, order),
    pathlib.Path(_WEIGHTS.value).expanduser(),
    workdir,
    mean=caffe.read_mean(pathlib.Path(path)) if path else None,
    names=_read_names(),
    channel_order=_CHANNEL_ORDER.value,
  )


def main(_) -> None:
  """Does what the flags say."""
  _check_flags()
  workdir = pathlib.Path(_WORKDIR.value).expanduser().resolve()
  _import(workdir)
  print(f'{workdir} is a run, at step 0.')


if __name__ == '__main__':
  command_line.run(main)
