"""Crossings against a line; the search on errors that are known."""

import math

import pytest

from alexnet_jax.sweeps import rate_search


@pytest.mark.parametrize(
  'errors, epochs, expected',
  [
    ([0.5, 0.35, 0.15, 0.3], None, 2.5),  # the first crossing
    ([0.5, 0.3, 0.2], [2.0, 4.0, 8.0], 6.0),
    ([0.2, 0.1], None, 1.0),
    ([0.5, 0.25], None, 2.0),
    ([0.5, 0.3], None, math.inf),
    ([], None, math.inf),
  ],
)
def test_crossings(errors, epochs, expected):
  epochs = epochs or range(1, len(errors) + 1)
  curve = list(zip(epochs, errors, strict=True))
  assert rate_search.crossing(curve, 0.25) == pytest.approx(expected)


RATES = (1, 2, 4, 8, 16)


@pytest.mark.parametrize(
  'epochs_of, tried, best',
  [
    ({1: 9, 2: 5, 4: 3, 8: 4, 16: 1}, [4, 8, 2], 4),
    ({1: 9, 2: 5, 4: 3, 8: 2, 16: 2.5}, [4, 8, 16], 8),
    ({1: 9, 2: 5, 4: 3, 8: 2, 16: 1}, [4, 8, 16], 16),
    ({1: 1, 2: 2, 4: 3, 8: 4, 16: 5}, [4, 8, 2, 1], 1),
    # Too fast to learn anything at first.
    ({1: 9, 2: math.inf, 4: math.inf, 8: math.inf}, [4, 8, 2, 1], 1),
    ({1: 50, 2: 40, 4: 30, 8: 30, 16: 30}, [4, 8, 2, 1], None),
  ],
)
def test_search(epochs_of, tried, best):
  calls = []

  def epochs(rate, limit):
    calls.append(rate)
    return epochs_of[rate] if epochs_of[rate] < limit else math.inf

  found = rate_search.search(epochs, RATES, 4, limit=20)
  assert calls == tried == list(found)
  if best:
    assert min(found, key=found.get) == best
  else:
    assert set(found.values()) == {math.inf}
