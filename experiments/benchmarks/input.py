r"""Times the loading of training images, against other loaders.

    python -m experiments.benchmarks.input --config=configs/alexnet.py \
        --config.data.tfds_dir=DIR --torch_python=PYTHON

The config names the images and the batch size. The first --num_images of its
training set are prepared in a temporary directory and go round. They fit into
memory, so this measures work, not disks. What input costs a training is in the
rows of any run: `input_seconds` under `timing`.

How it is fair:

* Every loader reads the same JPEG bytes or their pixels, crops at random,
  mirrors with probability a half, and gives batches of uint8 in the layout that
  its library prefers. 'originals' reads the source's own files and resizes.
* Each loader with its number of workers is a process of its own, on as many
  cores as it has workers; what it does beside its workers has to find its time
  there too. Each runs alone while it is measured, in a random order that is new
  in every round (see `contest`). Medians are reported.
* What lay ready in buffers is taken before the clock starts. From then on
  batches are taken as fast as they come, so that buffers are as empty at the
  end; whole turns of the workers are counted.
* Every round records how many cores other programs used meanwhile.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line
from alexnet_jax.tools import tables
from experiments.benchmarks import contest, machine

# Name -> (module of this package, what it reads).
_LOADERS = {
  'alexnet_jax jpeg': ('input_tf', 'prepared set, JPEG'),
  'alexnet_jax raw': ('input_tf', 'prepared set, raw'),
  'torch, torchvision.io': ('input_torch', 'prepared JPEG files'),
  'torch, PIL': ('input_torch', 'prepared JPEG files'),
  'tf.data, originals': ('input_tf', 'original files, resized each time'),
}


def define_flags() -> None:
  """Defines the flags of the program."""
  config_flags.DEFINE_config_file(
    'config', 'configs/alexnet.py', 'A file of configs/, optionally with :DATA.'
  )
  contest.define_flags('runs/benchmark_input', 10, 'torchvision')
  flags.DEFINE_multi_integer(
    'workers', sorted({1, os.cpu_count()}), 'Workers a loader.', lower_bound=1
  )
  flags.DEFINE_integer('num_images', 512, 'Different images.', lower_bound=1)


def main(_) -> None:
  """Measures all loaders and writes results."""
  from alexnet_jax import validate

  values, output = flags.FLAGS, pathlib.Path(flags.FLAGS.output)
  validate.check_config(values.config)
  contest.check_python('torch_python', values.torch_python)
  with tempfile.TemporaryDirectory() as directory:
    results = _measure(directory)
  output.mkdir(parents=True, exist_ok=True)
  text = json.dumps(results, indent=2) + '\n'
  (output / 'results.json').write_text(text)
  (output / 'results.md').write_text(_markdown(results))
  print(_markdown(results))


def _measure(directory: str) -> dict:
  """Returns the rows of all loaders, and what must stand beside them."""
  values, config = flags.FLAGS, flags.FLAGS.config
  settings = {
    'num_images': write_images(pathlib.Path(directory), config.data),
    'image_size': config.data.image_size,
    'crop_size': config.data.crop_size,
    'batch_size': config.batch_size,
    'seed': config.seed,
    'rounds': values.rounds,
    'seconds': values.seconds,
  }
  processes = [
    _process(name, workers, directory)
    for name in _LOADERS
    for workers in values.workers
  ]
  rows = contest.run(processes, values.rounds, values.seconds, config.seed)
  return {'about': machine.describe(), 'settings': settings, 'rows': rows}


def write_images(directory: pathlib.Path, data) -> int:
  """Writes the same training images in every form that a loader reads.

  These are originals/ (the source's own files), jpeg/ and raw/ (prepared sets)
  and files/ (the images of jpeg/, a file each).

  Args:
    directory: Where to write.
    data: `config.data`, which names the source.

  Returns:
    The number of images.
  """
  from alexnet_jax.data import prepare, sources

  source = sources.open_source(data.name, data.tfds_dir, data.manual_dir)
  count = min(flags.FLAGS.num_images, source.num_examples['train'])
  counts = {'train': count, 'validation': 1}

  def examples(split: str, start: int):
    return source.examples(split, start).take(counts[split] - start)

  first = dataclasses.replace(source, num_examples=counts, examples=examples)
  files = [x['image'] for x in examples('train', 0).as_numpy_iterator()]
  _write_files(directory / 'originals', files)
  for encoding in ('jpeg', 'raw'):
    prepared = prepare.prepare(
      first, str(directory / encoding), data.image_size, encoding
    )
    if encoding == 'jpeg':
      jpeg = prepared.open_split('train')
      _write_files(directory / 'files', jpeg.read(np.arange(count)))
  return count


def _write_files(folder: pathlib.Path, files: list[bytes]) -> None:
  folder.mkdir()
  for number, content in enumerate(files):
    # Decoders go by the contents, whatever the suffix says.
    (folder / f'{number:06}.jpg').write_bytes(content)


def _process(name: str, workers: int, directory: str) -> contest.Contender:
  """Returns the process of a loader."""
  config, (module, _) = flags.FLAGS.config, _LOADERS[name]
  job = {
    'loader': name,
    'directory': directory,
    'workers': workers,
    'batch_size': config.batch_size,
    'seed': config.seed,
    'data': json.loads(config.data.to_json()) | {'workers': workers},
  }
  is_torch = module == 'input_torch'
  python = flags.FLAGS.torch_python if is_torch else sys.executable
  command = [python, '-m', f'{__spec__.parent}.{module}', json.dumps(job)]
  # Loading needs no GPU.
  return contest.Contender(
    f'{name}, workers={workers}', command, {'CUDA_VISIBLE_DEVICES': ''}
  )


def _markdown(results: dict) -> str:
  rows, settings = results['rows'], results['settings']
  lines = []
  for row in sorted(rows, key=lambda row: -row.get('median', 0)):
    name, _, workers = row['name'].rpartition(', workers=')
    rate = contest.why_missing(row)
    if 'median' in row:
      rate = f'{row["median"]:,.0f} ({row["min"]:,.0f}-{row["max"]:,.0f})'
    lines.append([name, _LOADERS[name][1], workers, rate])
  head = ('loader', 'reads', 'workers', 'images/s')
  return f"""{machine.heading('Training input', results['about'])}
Images/s: the median of {settings['rounds']} rounds, least and most in brackets;
batches of {settings['batch_size']}, seed {settings['seed']}. Versions of each
loader's libraries are in results.json.

{tables.markdown(head, lines, 'llrr')}

{contest.disturbance(rows)}
"""


if __name__ == '__main__':
  command_line.run(main, define_flags)
