r"""Measures the training step: against PyTorch, and what each trick gains.

    python -m experiments.benchmark_step --torch_python=PYTHON

Sections are chosen with --sections; each is written as soon as it is done, and
others keep what they had. Batches of 128 random pictures stay on the device, so
this measures the step alone (`benchmark_input` measures what feeds it).

How it is fair:

* Each contender is a process of its own, under a Python that has its library,
  with all cores and the same malloc settings. Processes are started and warmed
  up once, then stopped with SIGSTOP; each runs alone while it is measured.
* Rounds go through all contenders of a group, in a new random order each, so
  that a slow minute of the machine hits them alike. Medians are reported, and
  ratios are medians of the rounds' ratios. A section is a group, or several
  where memory does not hold it.
* A turn ends with the step that passes --seconds: one step at least.
* The networks are the same, from the same table of layers; PyTorch's response
  norm runs over both towers' channels, as its users would write it. Ours alone
  does what training does beside: colour noise, metrics, and the check that all
  is finite; its evaluation counts errors, the others' is the forward pass.
* Every round records how many cores other programs used meanwhile.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.data import images, prepare, sources
from experiments.benchmarking import contest, machine
from experiments.training_steps import contenders, report

_START, _ACCELERATOR = 'start', 'accelerator'
_ALL = [*contenders.SECTIONS, _START, _ACCELERATOR]
_SECTIONS = flags.DEFINE_multi_enum('sections', _ALL, _ALL, 'What to do.')
_OUTPUT = flags.DEFINE_string(
  'output', 'experiments/results/benchmark_step', 'Directory of the results.'
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 128, 'Images of a batch.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 5, 'Least length of a turn.')
_TORCH_PYTHON = flags.DEFINE_string(
  'torch_python', sys.executable, 'Interpreter that has PyTorch.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of pictures, networks and orders.')


def _config(name: str, overrides: dict | None = None) -> dict:
  """A recipe as a job's plain dictionary."""
  config = contenders.CONFIGS[name].get_config()
  config.seed = _SEED.value
  config.batch_size = _BATCH_SIZE.value
  config.update_from_flattened_dict(overrides or {})
  return json.loads(config.to_json())


def _start_worker(
  contender: contenders.Contender, config: str, directory: pathlib.Path
) -> contest.Worker:
  job = {
    'framework': contender.framework,
    'arguments': contender.arguments,
    'measures': list(contender.measures),
    'config': _config(config, contender.overrides),
  }
  is_torch = contender.framework == 'torch'
  python = _TORCH_PYTHON.value if is_torch else sys.executable
  worker = contest.Worker(
    [python, '-m', 'experiments.training_steps.worker', json.dumps(job)],
    directory / f'{contender.name}.log',
    {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | contender.environment,
  )
  print(f'{contender.name}: {worker.status} {worker.reason}', flush=True)
  return worker


def _run_section(name: str, directory: pathlib.Path) -> list[dict]:
  """Rows of one section, also of contenders that are missing."""
  section = contenders.SECTIONS[name]
  return [
    {'group': number, **row}
    for number, group in enumerate(section.groups)
    for row in _run_group(group, section.config, directory)
  ]


def _run_group(
  group: list[contenders.Contender], config: str, directory: pathlib.Path
) -> list[dict]:
  workers, rows = [], []
  with contest.closing(workers):
    for contender in group:
      worker = _start_worker(contender, config, directory)
      workers.append(worker)
      for what in worker.about.get('measures', contender.measures):
        entry = contest.Entry(f'{contender.name}, {what}', worker, what)
        rows.append(({'name': contender.name, 'what': what}, entry))
    ready = [entry for _, entry in rows if entry.worker.status == 'ready']
    contest.run(ready, _ROUNDS.value, _SECONDS.value, _SEED.value)
  return [row | _outcome(entry) for row, entry in rows]


def _outcome(entry: contest.Entry) -> dict:
  worker = entry.worker
  if worker.status != 'ready':
    return {'status': worker.status, 'reason': worker.reason}
  about = {k: v for k, v in worker.about.items() if k != 'measures'}
  return entry.summary() | about


def _write_pictures(directory: pathlib.Path, size: int) -> None:
  """A batch of noise to train on, an image to validate with: any would do."""
  rng = np.random.default_rng(_SEED.value)
  for split, count in (('train', _BATCH_SIZE.value), ('validation', 1)):
    folder = directory / split / 'all'
    folder.mkdir(parents=True)
    for i in range(count):
      image = rng.integers(0, 256, (size, size, 3), np.uint8)
      (folder / f'{i}.jpg').write_bytes(images.encode(image).numpy())


def _measure_starts(directory: pathlib.Path) -> list[dict]:
  """Stages of process starts: with an empty cache, then with a warm one."""
  config = _config('alexnet')
  pictures = directory / 'pictures'
  _write_pictures(pictures, config['data']['image_size'])
  config['data'] |= {'name': f'folder={pictures}', 'dir': str(directory)}
  source = sources.open_source(config['data']['name'])
  prepare.prepare(source, str(directory), config['data']['image_size'])
  environment = os.environ | contenders.MALLOC
  environment['JAX_COMPILATION_CACHE_DIR'] = str(directory / 'cache')
  rows = []
  for cache in ('cold', 'warm', 'warm'):
    job = json.dumps({'config': config, 'started': time.time()})
    command = [sys.executable, '-m', 'experiments.training_steps.start', job]
    done = subprocess.run(
      command, env=environment, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
      raise errors.UserError(f'a start failed: exit code {done.returncode}.')
    seconds = json.loads(done.stdout.splitlines()[-1])
    rows.append({'cache': cache, 'seconds': seconds})
    print(f'start, {cache} cache: {seconds}', flush=True)
  return rows


def _measure(name: str, directory: pathlib.Path) -> dict:
  """One section's rows, with what must stand beside them."""
  settings = {
    'batch_size': _BATCH_SIZE.value,
    'rounds': _ROUNDS.value,
    'seconds': _SECONDS.value,
    'seed': _SEED.value,
  }
  about = {'environment': machine.environment(), 'settings': settings}
  if name == _START:
    return about | {'rows': _measure_starts(directory)}
  if name == _ACCELERATOR:
    return about | {
      'rows': report.accelerator_rows(
        contenders.CONFIGS['alexnet'].get_config()
      )
    }
  return about | {'rows': _run_section(name, directory)}


def main(_) -> None:
  """Measures, and writes what came out."""
  # To end the workers and remove the files on the way out.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit('terminated'))
  if not os.access(_TORCH_PYTHON.value, os.X_OK):
    raise errors.UserError(
      f'--torch_python={_TORCH_PYTHON.value} is no program; give the path of '
      'a Python.'
    )
  output = pathlib.Path(_OUTPUT.value)
  for name in _SECTIONS.value:
    with tempfile.TemporaryDirectory() as directory:
      section = _measure(name, pathlib.Path(directory))
    results = report.update(output, name, section)
    print(report.section_markdown(name, results[name]), flush=True)


if __name__ == '__main__':
  command_line.run(main)
