"""Names of ImageNet's classes that a person can read.

imagenet_names.txt has a WordNet id and a name a line, in the order of labels:
ids as TFDS has them (`imagenet2012`), names as torchvision's weights do
(`IMAGENET1K_V1`, category names).
"""

import functools
import pathlib


@functools.cache
def imagenet() -> dict[str, str]:
  """WordNet ids of ILSVRC-2012's 1000 classes, by label, and their names."""
  path = pathlib.Path(__file__).with_name('imagenet_names.txt')
  pairs = (line.split(' ', 1) for line in path.read_text().splitlines())
  return dict(pairs)


def readable(names: list[str]) -> list[str]:
  """WordNet ids that are ILSVRC-2012's become names; all others stay."""
  return [imagenet().get(name, name) for name in names]
