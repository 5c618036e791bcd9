"""Flags that several tools share.

A tool defines its flags only when it is the program (`define_flags`), so that
tools can import each other.
"""

from absl import flags

from alexnet_jax import command_line, errors, paths, trained

FLAGS = flags.FLAGS
_RUN = 'A run: DIR, DIR@STEP, DIR@best or pretrained:NAME.'
_PICTURES = ('.png', '.jpg', '.pdf', '.svg')
_FIELDS = {
  'views': 'eval.views',
  'data_dir': 'data.dir',
  'tfds_dir': 'data.tfds_dir',
  'manual_dir': 'data.manual_dir',
}


def define_workdir(default: str | None = None) -> None:
  """Defines the flag --workdir."""
  flags.DEFINE_string('workdir', default, _RUN)


def define_output(default: str | None, text: str) -> None:
  """Defines the flag --output; a place that is no path is refused at once."""
  flags.DEFINE_string('output', default, text)
  flags.register_validator(
    'output', lambda path: not path or bool(paths.local('--output', path))
  )


def define_picture(default: str | None) -> None:
  """Defines the flag --output, the name of a picture."""
  define_output(default, 'The picture to write.')
  flags.register_validator(
    'output',
    lambda path: path is None or path.endswith(_PICTURES),
    f'give a name that ends in {", ".join(_PICTURES)}',
  )


def define_views() -> None:
  """Defines the flag --views."""
  text = 'Patches of an image that are averaged (paper, section 4.1).'
  flags.DEFINE_enum('views', '10', ['1', '10'], text)


def define_data() -> None:
  """Defines --batch_size and the places of the data."""
  flags.DEFINE_integer('batch_size', 128, 'Images at a time.', lower_bound=1)
  flags.DEFINE_string('data_dir', None, 'Root of the prepared data sets.')
  flags.DEFINE_string('tfds_dir', None, 'data_dir of TFDS.')
  flags.DEFINE_string('manual_dir', None, 'Folder of the ILSVRC tar files.')


def define_examples(count: int) -> None:
  """Defines --count and --seed, which choose validation images."""
  flags.DEFINE_integer('count', count, 'Validation images.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Number that keys which.', lower_bound=0)


def overrides() -> dict[str, object]:
  """Returns the fields of a run's config that flags change."""
  given = {name for name in _FIELDS if name in FLAGS and FLAGS[name].value}
  fields = {_FIELDS[name]: FLAGS[name].value for name in given}
  if 'views' in given:
    fields['eval.views'] = int(FLAGS.views)
  return fields


def load_run(**more: object) -> trained.TrainedRun:
  """Restores the run that --workdir names, onto the devices.

  Args:
    **more: Further fields of its config.

  Raises:
    UserError: If --workdir is missing or names no run.
  """
  if not FLAGS.workdir:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  command_line.set_up_jax()
  return trained.load(FLAGS.workdir, overrides() | more)
