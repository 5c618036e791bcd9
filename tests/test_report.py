"""alexnet_jax.tools.report: one page that stands alone and trusts no data."""

import html.parser
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from alexnet_jax import train
from alexnet_jax.tools import report
from configs import cifar10

ROOT = pathlib.Path(__file__).parents[1]
HOSTILE = '<img src=x onerror="alert($1_$)">'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A small run on pictures of two classes, one of them with a hostile name."""
  directory = tmp_path_factory.mktemp('report')
  rng = np.random.default_rng(0)
  for split in ('train', 'validation'):
    for name in ('plain', HOSTILE):
      folder = directory / 'pictures' / split / name
      folder.mkdir(parents=True)
      for i in range(8):
        picture = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        encoded = tf.io.encode_png(picture).numpy()
        (folder / f'{i}.png').write_bytes(encoded)
  config = cifar10.get_config(f'folder={directory}/pictures')
  config.data.update({'image_size': 16, 'crop_size': 16})
  config.data.dir = str(directory)
  config.batch_size, config.train_steps, config.num_devices = 8, 2, 1
  train.train_and_evaluate(config, directory / 'run')
  return directory


class _Page(html.parser.HTMLParser):
  """Collects tags with their attributes, and text."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.text = [], ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.text += data


def test_the_page_has_every_part_and_asks_for_nothing(run):
  command = [sys.executable, '-m', 'alexnet_jax.tools.report', '--batch_size=8']
  command += [f'--workdir={run}/run', f'--output={run}/report.html']
  subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
  page = _Page((run / 'report.html').read_text())
  sections = [a['id'] for tag, a in page.tags if tag == 'section']
  assert sections == [*report.PARTS, 'setup']
  assert 'Not drawn' not in page.text
  pictures = [a for tag, a in page.tags if tag == 'img']
  assert len(pictures) >= 6
  assert all(a['src'].startswith('data:image/png;base64,') for a in pictures)
  assert all(a['alt'] and 'onerror' not in a for a in pictures)
  names = {tag for tag, _ in page.tags}
  assert not names & {'script', 'link', 'iframe', 'object', 'form'}
  links = [a['href'] for tag, a in page.tags if 'href' in a]
  assert all(link.startswith('#') for link in links)
  assert HOSTILE in page.text  # as text, in the table of mistakes or data.json


def test_mistakes_are_ranked():
  counts = np.array([[5, 3, 0], [1, 9, 0], [3, 0, 1]])
  assert report.rank_mistakes(counts, 3) == [
    (0, 1, 3, 3 / 8),
    (2, 0, 3, 3 / 4),
    (1, 0, 1, 1 / 10),
  ]
