"""Flags of the programs that apply trained networks."""

from absl import flags

VIEWS = flags.DEFINE_enum(
  'views', '10', ['1', '10'], 'Patches of an image (paper section 4.1).'
)
BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 128, 'Pictures at a time.', lower_bound=1
)
