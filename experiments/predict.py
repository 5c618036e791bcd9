r"""Says what is on pictures.

    python -m experiments.predict --workdir=runs/alexnet cat.jpg holiday/
    find . -name '*.png' | python -m experiments.predict --workdir=runs/a -

Arguments are files, folders (searched for pictures, to any depth) and `-`, for
a list of files on standard input, one a line. Prints the most likely classes of
each, or with --json one JSON object a line. A file that is no picture is named
on standard error and left out, and the exit code is then 1.
"""

import json
import sys

from absl import flags

from alexnet_jax import (
  command_line,
  compilation_cache,
  errors,
  predict,
  trained,
)
from experiments import network_flags

_TOP = flags.DEFINE_integer('top', 5, 'How many classes.', lower_bound=1)
_JSON = flags.DEFINE_bool('json', False, 'JSON lines instead of text.')


def _text(result: dict[str, object]) -> str:
  lines = [
    f'{100 * p["probability"]:6.2f}%  {p["name"]}'
    for p in result['predictions']
  ]
  return '\n'.join([result['path'], *lines])


def _check_flags(arguments: list[str]) -> None:
  network_flags.refuse('output', *network_flags.DATA)
  if not network_flags.WORKDIR.value:
    raise errors.UserError("--workdir is missing; give the run's directory.")
  if not arguments:
    raise errors.UserError('no pictures; give files, folders or -.')


def main(arguments: list[str]) -> None:
  """Does what the flags say."""
  failed = 0
  _check_flags(arguments)
  compilation_cache.enable()
  views = {'eval.views': int(network_flags.VIEWS.value)}
  run = trained.load(network_flags.WORKDIR.value, views)
  paths, count = predict.find(arguments), network_flags.BATCH_SIZE.value
  for result in predict.predict(run, paths, count, _TOP.value):
    if 'error' in result:
      failed += 1
      print(f'error: {result["error"]}.', file=sys.stderr)
    else:
      print(json.dumps(result) if _JSON.value else _text(result), flush=True)
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  command_line.run(main, takes_arguments=True)
