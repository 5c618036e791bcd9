"""Embedded data set: ten classes of shapes and textures, drawn by formula.

A fresh machine has no ImageNet. These pictures cost nothing to ship, go
through the same pipeline, and have what AlexNet's first layer looks for:
edges, colours, gratings. Colours, places, sizes and rotations are random, so
that no class can be told from its colour or from one pixel.
"""

import numpy as np

SIZE = 96
NUM_EXAMPLES = {'train': 8000, 'validation': 1000}
_SALT = {'train': 0, 'validation': 1}


def _polygon(angle, radius, corners):
  """Returns what lies inside a regular polygon, in polar coordinates."""
  sector = 2 * np.pi / corners
  distance = radius * np.cos((angle % sector) - sector / 2)
  return distance < np.cos(sector / 2)


def _star(angle, radius):
  point = np.abs(((angle / (2 * np.pi) * 5) % 1) - 0.5) * 2
  return radius < 0.4 + 0.6 * point**1.5


def _cross(x, y):
  bars = np.minimum(np.abs(x), np.abs(y)) < 0.28
  return bars & (np.maximum(np.abs(x), np.abs(y)) < 1)


# Inside of each shape on its own coordinates: centre 0, extent about 1.
SHAPES = {
  'disc': lambda x, y: np.hypot(x, y) < 0.9,
  'ring': lambda x, y: np.abs(np.hypot(x, y) - 0.75) < 0.2,
  'triangle': lambda x, y: _polygon(np.arctan2(y, x), np.hypot(x, y), 3),
  'square': lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.75,
  'star': lambda x, y: _star(np.arctan2(y, x), np.hypot(x, y)),
  'cross': _cross,
  'crescent': lambda x, y: (
    (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.45, y) > 0.7)
  ),
  'stripes': lambda x, y: np.sin(7 * x) > 0,
  'checkerboard': lambda x, y: np.sin(6 * x) * np.sin(6 * y) > 0,
  'dots': lambda x, y: np.cos(7 * x) + np.cos(7 * y) > 0.9,
}
CLASS_NAMES = tuple(SHAPES)


def _coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Returns a rotated, moved and scaled grid: two arrays [SIZE, SIZE]."""
  axis = np.linspace(-1, 1, SIZE)
  x, y = np.meshgrid(axis, axis)
  scale = rng.uniform(0.45, 0.8)
  x, y = (x - rng.uniform(-0.25, 0.25)), (y - rng.uniform(-0.25, 0.25))
  turn = rng.uniform(0, 2 * np.pi)
  cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
  return cos * x + sin * y, cos * y - sin * x


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draws two colours [3] that a person can tell apart."""
  while True:
    front, back = rng.uniform(20, 235, (2, 3))
    if np.abs(front - back).sum() > 150:
      return front, back


def draw(split: str, index: int) -> tuple[np.ndarray, int]:
  """Draws one example, which is the same at every call.

  Args:
    split: 'train' or 'validation'.
    index: Number of the example in its split.

  Returns:
    [SIZE, SIZE, 3] of uint8, and its label in 0..9.
  """
  rng = np.random.default_rng([2012, _SALT[split], index])
  label = index % len(CLASS_NAMES)
  inside = SHAPES[CLASS_NAMES[label]](*_coordinates(rng))
  front, back = _colours(rng)
  # Light falls from one side, and the sensor has noise.
  ramp = np.linspace(0.75, 1.25, SIZE)[:: rng.choice((-1, 1))]
  light = ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
  image = np.where(inside[..., None], front, back) * light
  image = image + rng.normal(0, rng.uniform(4, 16), image.shape)
  return np.clip(image, 0, 255).astype(np.uint8), label
