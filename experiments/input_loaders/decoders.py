"""Whether the contenders' JPEG decoders give the same pixels.

    python -m experiments.input_loaders.decoders NAME OUTPUT FILE...

decodes files as one of them does, into a .npy of [N, H, W, 3].
"""

import pathlib
import subprocess
import sys

import numpy as np

from experiments.input_loaders import contenders, layout


def compare(
  images: layout.Layout, count: int, pythons: dict[str, str]
) -> list[dict]:
  """Decodes the first files by each decoder.

  Args:
    images: where the files are.
    count: how many to decode.
    pythons: the interpreters, see `contenders.Contender.python`.

  Returns:
    A row for each decoder: its 'name', and the largest and mean absolute
    difference to the first one's pixels ('max', 'mean'), or neither of the two
    where it is not installed.
  """
  rows, reference = [], None
  for name, (python, _) in contenders.DECODERS.items():
    output = images.directory / 'decoded.npy'
    files = images.files()[:count]
    arguments = [pythons[python], '-m', __name__, name, str(output), *files]
    output.unlink(missing_ok=True)
    subprocess.run(arguments, cwd=layout.ROOT, stderr=subprocess.DEVNULL)
    if not output.exists():
      rows.append({'name': name})
      continue
    pixels = np.load(output).astype(np.int16)
    reference = pixels if reference is None else reference
    difference = np.abs(pixels - reference)
    worst, mean = int(difference.max()), float(difference.mean())
    rows.append({'name': name, 'max': worst, 'mean': mean})
  return rows


def main() -> None:
  """Decodes what the command line names."""
  name, output, *files = sys.argv[1:]
  decode = contenders.load(contenders.DECODERS[name][1])
  np.save(pathlib.Path(output), np.stack([decode(file) for file in files]))


if __name__ == '__main__':
  main()
