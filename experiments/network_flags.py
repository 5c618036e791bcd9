"""Flags of the programs that apply trained networks."""

from absl import flags

from alexnet_jax import errors

WORKDIR = flags.DEFINE_string('workdir', None, 'A run: DIR or DIR@STEP.')
OUTPUT = flags.DEFINE_string(
  'output', None, 'What to write; the program says what it is by default.'
)
VIEWS = flags.DEFINE_enum(
  'views', '10', ['1', '10'], 'Patches of an image (paper section 4.1).'
)
BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 128, 'Pictures at a time.', lower_bound=1
)
_DATA = {
  'data.dir': flags.DEFINE_string('data_dir', None, 'Root of prepared sets.'),
  'data.tfds_dir': flags.DEFINE_string('tfds_dir', None, 'TFDS data_dir.'),
  'data.manual_dir': flags.DEFINE_string('manual_dir', None, 'ILSVRC tars.'),
}
DATA = tuple(flag.name for flag in _DATA.values())


def refuse(*names: str) -> None:
  """For a program that reads no such flags.

  Args:
    names: of flags.

  Raises:
    UserError: where one is given.
  """
  for name in names:
    if flags.FLAGS[name].present:
      raise errors.UserError(
        f'--{name}={flags.FLAGS[name].value} has no place here; leave it out.'
      )


def data_overrides() -> dict[str, object]:
  """Where the data lie, as far as flags say so; for `trained.load`."""
  return {name: flag.value for name, flag in _DATA.items() if flag.value}
