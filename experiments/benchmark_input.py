r"""Measures training input: against other loaders, and its cost in training.

    python -m experiments.benchmark_input --config=configs/alexnet.py \
        --config.data.tfds_dir=DIR --torch_python=PYTHON --ffcv_python=PYTHON

The config names the images, the batch size and the training whose input is
measured. The first --num_images of its training set are prepared in a
temporary directory and go round. They fit into memory, so this measures work,
not disks. Every loader reads the same JPEG bytes or their pixels (`originals`
reads the source's own files), crops at random, mirrors with probability a half,
and gives batches of uint8 in the layout that its library prefers.

How it is fair:

* Each loader with its number of workers is a process of its own, under a
  Python that has its library, on as many cores as it has workers; what it does
  beside its workers has to find its time there too.
* Processes are started and warmed up once, then stopped with SIGSTOP, with all
  their own workers. Each runs alone while it is measured.
* Rounds go through all of them, in a new random order each, so that a slow
  minute of the machine hits them alike; medians are reported.
* What lay ready in buffers is taken before the clock starts. From then on
  batches are taken as fast as they come, so that buffers are as empty at the
  end; whole turns of the workers are counted.
* Every round records how many cores other programs used meanwhile, and the
  report says how many rounds they disturbed: run it on a quiet machine. What
  other virtual machines take without a trace only shows as spread over rounds.

The ceilings do only a part of the work: `decode` decodes crops from memory,
`copy` copies them from raw pixels. Under `training`, input and step are
measured alone and together.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Iterator

from absl import flags
from ml_collections import config_flags

from alexnet_jax import command_line, errors, validate
from alexnet_jax.data import records, sources
from experiments.benchmarking import contest, machine
from experiments.input_loaders import (
  contenders,
  decoders,
  layout,
  report,
)

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/alexnet.py', 'A file of configs/, optionally with :DATA.'
)
_OUTPUT = flags.DEFINE_string(
  'output', 'experiments/results/benchmark_input', 'Directory of the results.'
)
_SECTIONS = flags.DEFINE_multi_enum(
  'sections', ['loaders', 'training'], ['loaders', 'training'], 'What to do.'
)
_CONTENDERS = flags.DEFINE_multi_enum(
  'contenders', list(contenders.CONTENDERS), list(contenders.CONTENDERS), 'Who.'
)
_WORKERS = flags.DEFINE_multi_integer(
  'workers', sorted({1, os.cpu_count()}), 'Numbers of workers.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 10, 'Length of a round.')
_TRAINING_SECONDS = flags.DEFINE_float(
  'training_seconds', 30, 'Length of a round with training steps.'
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images', 512, 'How many different images.', lower_bound=16
)
_PYTHONS = {
  library: flags.DEFINE_string(
    f'{library}_python', sys.executable, f'Interpreter that has {library}.'
  )
  for library in ('torch', 'grain', 'ffcv')
}
_COMPARED_IMAGES = 16


def _pythons() -> dict[str, str]:
  """The interpreter of each kind of contender."""
  found = {library: flag.value for library, flag in _PYTHONS.items()}
  for library, python in found.items():
    if not os.access(python, os.X_OK):
      raise errors.UserError(
        f'--{library}_python={python} is no program; give the path of a Python.'
      )
  return found | {'jax': sys.executable}


def _create_images(config, directory: pathlib.Path) -> layout.Layout:
  data = config.data
  source = sources.open_source(data.name, data.tfds_dir, data.manual_dir)
  count = min(_NUM_IMAGES.value, source.num_examples['train'])
  return layout.create(directory, source, count, data.image_size)


def _compare_loaders(config, images: layout.Layout) -> list[dict]:
  """Rows of the contest between loaders, also of those that are missing."""
  workers, rows = [], []
  with contest.closing(workers):
    for name in _CONTENDERS.value:
      for count in _WORKERS.value:
        worker = _start_loader(name, count, config, images)
        workers.append(worker)
        entry = contest.Entry(f'{name}, workers={count}', worker, 'loader')
        rows.append(({'name': name, 'workers': count}, entry))
    entries = [entry for _, entry in rows if entry.worker.status == 'ready']
    contest.run(entries, _ROUNDS.value, _SECONDS.value, config.seed)
  return [row | _outcome(entry) for row, entry in rows]


def _start_loader(
  name: str, count: int, config, images: layout.Layout
) -> contest.Worker:
  job = {
    'contender': name,
    'directory': str(images.directory),
    'workers': count,
    'batch_size': config.batch_size,
    'seed': config.seed,
    'data': json.loads(config.data.to_json()) | {'workers': count},
  }
  python = _pythons()[contenders.CONTENDERS[name].python]
  worker = contest.Worker(
    [python, '-m', 'experiments.input_loaders.worker', json.dumps(job)],
    images.directory / f'{name}, workers={count}.log',
    # Loading needs no accelerator, and must take none from the training.
    {'CUDA_VISIBLE_DEVICES': ''},
  )
  print(f'{name}, workers={count}: {worker.status} {worker.reason}')
  return worker


def _outcome(entry: contest.Entry) -> dict:
  worker = entry.worker
  if worker.status != 'ready':
    return {'status': worker.status, 'reason': worker.reason}
  return entry.summary() | worker.about


def _measure_training(config, directory: pathlib.Path) -> dict:
  """Rates of input, step and both, and what input costs."""
  job = json.dumps(json.loads(config.to_json()))
  worker = contest.Worker(
    [sys.executable, '-m', 'experiments.input_loaders.training', job],
    directory / 'training.log',
  )
  with contest.closing([worker]):
    if worker.status != 'ready':
      raise errors.UserError(worker.reason)
    parts = {
      what: contest.Entry(f'training, {what}', worker, what)
      for what in ('input', 'step', 'both')
    }
    contest.run(
      list(parts.values()),
      _ROUNDS.value,
      _TRAINING_SECONDS.value,
      config.seed,
    )
    if worker.status != 'ready':  # it died
      raise errors.UserError(worker.reason)
  rates = {what: entry.summary() for what, entry in parts.items()}
  cost = 1 - rates['both']['median'] / rates['step']['median']
  return rates | worker.about | {'cost_percent': 100 * cost}


def _benchmark(config, directory: pathlib.Path) -> Iterator[dict]:
  """Does the sections that the flags name; yields all so far after each."""
  results = {
    'environment': machine.environment(),
    'settings': {
      'seed': config.seed,
      'batch_size': config.batch_size,
      'image_size': config.data.image_size,
      'crop_size': config.data.crop_size,
      'rounds': _ROUNDS.value,
      'seconds': _SECONDS.value,
      'training_seconds': _TRAINING_SECONDS.value,
    },
  }
  prepared = records.open_prepared(config.data.dir, config.data.name)
  if 'loaders' in _SECTIONS.value or prepared is None:
    images = _create_images(config, directory)
  if 'loaders' in _SECTIONS.value:
    results['settings']['num_images'] = len(images.files())
    results['decoders'] = decoders.compare(images, _COMPARED_IMAGES, _pythons())
    results['loaders'] = _compare_loaders(config, images)
    yield results
  if 'training' in _SECTIONS.value:
    if prepared is None:
      config.data.name, config.data.dir = images.source, str(directory / 'jpeg')
    results['training'] = _measure_training(config, directory)
    yield results


def main(_) -> None:
  """Measures, and writes what came out."""
  # To end the workers and remove the files on the way out.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('terminated'))
  config = _CONFIG.value
  validate.check_config(config)
  _pythons()
  with tempfile.TemporaryDirectory() as directory:
    for results in _benchmark(config, pathlib.Path(directory)):
      report.write(results, pathlib.Path(_OUTPUT.value))
  print(report.markdown(results))


if __name__ == '__main__':
  command_line.run(main)
