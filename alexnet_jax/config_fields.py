"""Which fields of a config may change, and when."""

# The machine's, not the run's.
_PLACES = (
  'num_devices',
  'data.dir',
  'data.tfds_dir',
  'data.manual_dir',
  'data.workers',
)
# What no result depends on, but for rounding.
WITHOUT_EFFECT = (
  *_PLACES,
  'checkpoint_every_epochs',
  'checkpoint_every_steps',
  'keep_checkpoints',
  'profile_steps',
  'checks',
  'eval.split',
  'eval.step',
)
_LENGTHS = ('num_epochs', 'train_steps')
# What a schedule takes its drops from.
_RATES_FOLLOW = {
  'four_step': _LENGTHS,
  'plateau': ('eval_every_epochs', 'eval_every_steps', 'eval.views'),
}
# What --mode=eval may be given, beside all of `eval`.
OF_EVALUATION = ('batch_size', *_PLACES)


def changes_nothing_done(name: str) -> bool:
  """Whether a run that has ended is, with another value, still what it was.

  Args:
    name: as 'data.dir'.
  """
  return name in (*WITHOUT_EFFECT, *_LENGTHS)


def is_resumable(name: str, schedule: str) -> bool:
  """Whether a resumed run may have another value.

  Args:
    name: as 'data.dir'.
    schedule: the run's `schedule.name`.
  """
  if name in _RATES_FOLLOW.get(schedule, ()):
    return False
  is_later = '_every_' in name or name.startswith('eval.')
  return is_later or changes_nothing_done(name)


def is_evaluable(name: str) -> bool:
  """Whether --mode=eval may be given a value."""
  return name in OF_EVALUATION or name.startswith('eval.')
