r"""The paper's table of errors, for any runs and for all of them together.

    python -m experiments.error_table --workdirs=runs/a,runs/b@9000 --views=10

Each run evaluates its newest checkpoint, or the one after the @. Where several
are given, a last row averages their probabilities, as the paper's "5 CNNs" and
"7 CNNs" did (section 6). Every example of the split counts once.

Writes to the directory --output (errors/ by default): results.md, the table,
with the classes that the last row errs most on; results.json, the same with
every class's error; and confusion.npz, for each row an array [classes, classes]
of how often a label (first axis) was taken for a class.
"""

import json
import pathlib

import numpy as np
from absl import flags

from alexnet_jax import command_line, compilation_cache, errors
from alexnet_jax.analysis import error_table
from experiments import network_flags

_WORKDIRS = flags.DEFINE_list('workdirs', [], 'Runs, each DIR or DIR@STEP.')
_SPLIT = flags.DEFINE_enum(
  'split', 'validation', ['train', 'validation'], 'What to evaluate on.'
)
_DEFAULT_OUTPUT = 'errors/'


def _write(
  output: pathlib.Path,
  tallies: dict[str, error_table.Tally],
  classes: list[str],
) -> str:
  rows = {name: tally.summary(classes) for name, tally in tallies.items()}
  output.mkdir(parents=True, exist_ok=True)
  about = {'views': int(network_flags.VIEWS.value), 'split': _SPLIT.value}
  results = json.dumps(about | {'models': rows}, indent=2) + '\n'
  (output / 'results.json').write_text(results)
  confusion = {name: tally.confusion for name, tally in tallies.items()}
  np.savez_compressed(output / 'confusion.npz', **confusion)
  text = error_table.markdown(rows, network_flags.VIEWS.value, _SPLIT.value)
  (output / 'results.md').write_text(text)
  return text


def _overrides() -> dict[str, object]:
  return network_flags.data_overrides() | {
    'eval.views': int(network_flags.VIEWS.value),
    'eval.split': _SPLIT.value,
  }


def main(_) -> None:
  """Does what the flags say."""
  if not _WORKDIRS.value:
    raise errors.UserError('--workdirs is missing; give DIR,DIR@STEP,...')
  compilation_cache.enable()
  runs = [
    error_table.load(workdir, _overrides()) for workdir in _WORKDIRS.value
  ]
  tallies = error_table.measure(runs, network_flags.BATCH_SIZE.value)
  output = pathlib.Path(network_flags.OUTPUT.value or _DEFAULT_OUTPUT)
  print(_write(output, tallies, runs[0][1].class_names))


if __name__ == '__main__':
  command_line.run(main)
