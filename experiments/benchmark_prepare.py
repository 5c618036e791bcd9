r"""Times preparation beside plain decoding and resizing of the same files.

    python -m experiments.benchmark_prepare --source=imagenet2012 \
        --manual_dir=tars/ --output=experiments/results/benchmark_prepare

Preparing also encodes, reads back, sums and writes. The training images of the
source are repeated to two counts; the time between them is that of the images
alone. Every measurement is a process of its own, in turn, round after round;
medians are reported, with the processes' peak memory.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import tensorflow as tf

from alexnet_jax import command_line, errors, tables
from alexnet_jax.data import ilsvrc, images, pipeline, prepare, sources
from experiments.benchmarking import machine

_PLAIN = {
  'area': 'tf.data: decode, resize by area',
  'bilinear': 'tf.data: decode, resize bilinearly',
}


def _repeated(source: sources.Source, count: int) -> sources.Source:
  """A source of `count` training images, over and over the same ones."""

  def examples(split: str, start: int) -> tf.data.Dataset:
    return whole.skip(start).take(counts[split] - start)

  # Files of a few hundred images lie in memory anyway.
  whole = source.examples('train', 0).cache().repeat()
  counts = {'train': count, 'validation': 1}
  return dataclasses.replace(source, num_examples=counts, examples=examples)


def _prepare(source: sources.Source) -> None:
  with tempfile.TemporaryDirectory() as data_dir:
    prepare.prepare(source, data_dir)


def _plain(method: str) -> Callable[[sources.Source], None]:
  """What one writes with plain tf.data to get such images."""
  side = prepare.IMAGE_SIZE

  def resized(example: dict[str, tf.Tensor]) -> tf.Tensor:
    image = images.decode(example['image'])
    shape = tf.shape(image)[:2]
    image = tf.image.resize(image, shape * side // tf.reduce_min(shape), method)
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.cast(image + 0.5, tf.uint8)

  def run(source: sources.Source) -> None:
    dataset = source.examples('train', 0).map(resized, tf.data.AUTOTUNE)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    # The same threads as in prepare: with TensorFlow's own, it is often slower.
    threads = 2 * pipeline.num_cores()
    for _ in pipeline.with_threads(dataset, threads).as_numpy_iterator():
      pass

  return run


_JOBS = {'prepare': _prepare} | {name: _plain(name) for name in _PLAIN}


def _measure(args: argparse.Namespace) -> dict[str, float]:
  """Runs one job in this process."""
  source = sources.open_source(args.source, args.tfds_dir, args.manual_dir)
  source = _repeated(source, args.count)
  start = time.perf_counter()
  _JOBS[args.job](source)
  seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
  return {'seconds': seconds, 'peak_mib': peak / 1024}


def _spawn(args: argparse.Namespace, job: str, count: int) -> dict[str, float]:
  flags = {
    'source': args.source,
    'tfds_dir': args.tfds_dir,
    'manual_dir': args.manual_dir,
    'job': job,
    'count': count,
  }
  flags = [f'--{name}={value}' for name, value in flags.items()]
  command = [sys.executable, '-m', 'experiments.benchmark_prepare', *flags]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    *_, last = done.stderr.strip().splitlines() or ['no message']
    raise errors.UserError(f'{job}: exit code {done.returncode}: {last}')
  return json.loads(done.stdout.splitlines()[-1])


def _run(args: argparse.Namespace) -> list[dict]:
  """All measurements, in turn: a row for each job."""
  few, many = args.counts
  if args.rounds < 1 or not 0 < few < many:
    raise errors.UserError(
      f'--rounds={args.rounds} --counts {few} {many} measure nothing; give a '
      'round at least, and a smaller and a larger count.'
    )
  rows = [{'job': job, 'rates': [], 'peak_mib': []} for job in _JOBS]
  for _ in range(args.rounds):
    for row in rows:
      short, long = (_spawn(args, row['job'], n) for n in (few, many))
      seconds = long['seconds'] - short['seconds']
      row['rates'].append((many - few) / seconds)
      row['peak_mib'].append([short['peak_mib'], long['peak_mib']])
      print(row['job'], row['rates'][-1], row['peak_mib'][-1], flush=True)
  return rows


def _markdown(results: dict) -> str:
  few, many = (f'{count:,}' for count in results['counts'])
  rate = {r['job']: statistics.median(r['rates']) for r in results['rows']}
  lines = [
    machine.heading('Preparation', results['environment']),
    f'Images/s between {few} and {many} images, so that starting does not '
    'count: median,\nleast and most.\n',
  ]
  head = ('job', 'images/s', 'prepare over it')
  head += (f'peak MiB at {few}', f'at {many}')
  cells = []
  for row in results['rows']:
    job, rates = row['job'], row['rates']
    peaks = [statistics.median(p) for p in zip(*row['peak_mib'], strict=True)]
    speed = f'{rate[job]:.0f} ({min(rates):.0f}-{max(rates):.0f})'
    ratio = f'{rate["prepare"] / rate[job]:.2f}'
    memory = (f'{peak:.0f}' for peak in peaks)
    cells.append((_PLAIN.get(job, job), speed, ratio, *memory))
  lines.append(tables.markdown(head, cells))
  hours = sum(ilsvrc.COUNTS.values()) / rate['prepare'] / 3600
  lines.append(
    '\nAt this rate, the 1,281,167 + 50,000 images of ILSVRC-2012 take '
    f'{hours:.1f} hours on {results["environment"]["cores"]} cores.'
  )
  return '\n'.join(lines) + '\n'


def _parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.benchmark_prepare',
    description=__doc__.splitlines()[0],
  )
  add = parser.add_argument
  add('--source', default='shapes', help='see alexnet_jax/data/sources.py')
  add('--tfds_dir', default='', help="TFDS's own directory")
  add('--manual_dir', default='', help='the ILSVRC tars')
  add('--counts', type=int, nargs=2, default=[500, 5000], help='of images')
  add('--rounds', type=int, default=5)
  add(
    '--output',
    type=pathlib.Path,
    default='experiments/results/benchmark_prepare',
  )
  add('--job', choices=list(_JOBS), help='for the processes it starts')
  add('--count', type=int, help='for the processes it starts')
  return parser.parse_args()


def main() -> None:
  """Runs the benchmark, or the one job of a process that it started."""
  args = _parse_args()
  tf.config.set_visible_devices([], 'GPU')
  with command_line.one_sentence():
    if args.job:
      print(json.dumps(_measure(args)))
      return
    rows = _run(args)
  results = {
    'environment': machine.environment(),
    'counts': args.counts,
    'rows': rows,
  }
  args.output.mkdir(parents=True, exist_ok=True)
  text = json.dumps(results, indent=2) + '\n'
  (args.output / 'results.json').write_text(text)
  (args.output / 'results.md').write_text(_markdown(results))
  print(_markdown(results))


if __name__ == '__main__':
  main()
