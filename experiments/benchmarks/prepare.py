r"""Times preparation beside plain decoding and resizing of the same files.

    python -m experiments.benchmarks.prepare --source=imagenet2012 \
        --manual_dir=tars/

Preparing also encodes, reads back, sums and writes. The training images of the
source are repeated to two counts; the time between them is that of the images
alone. Every measurement is a process of its own, in turn, round after round.
Medians are reported, with the peak memory of the processes.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import resource
import statistics
import tempfile
import time

from absl import flags

from alexnet_jax import command_line, errors
from alexnet_jax.tools import tables
from experiments.benchmarks import machine

_PREPARE, _PLAIN = 'prepare', 'tf.data: decode, resize by area'
_IMAGENET = 1_281_167 + 50_000


def define_flags() -> None:
  """Defines the flags of the program."""
  flags.DEFINE_string('source', 'shapes', 'See alexnet_jax/data/sources.py.')
  flags.DEFINE_string('tfds_dir', '', "TFDS's own directory.")
  flags.DEFINE_string('manual_dir', '', 'Directory of the ILSVRC tars.')
  flags.DEFINE_list('counts', ['500', '5000'], 'Two numbers of images.')
  flags.DEFINE_integer('rounds', 5, 'Measurements of each.', lower_bound=1)
  flags.DEFINE_string(
    'output', 'runs/benchmark_prepare', 'Directory of the results.'
  )


def main(_) -> None:
  """Measures both jobs and writes results."""
  few, many = _counts()
  rows = [
    {'job': job, 'rates': [], 'peak_mib': []} for job in (_PREPARE, _PLAIN)
  ]
  for _ in range(flags.FLAGS.rounds):
    for row in rows:
      (short, low), (long, high) = (_spawn(row['job'], n) for n in (few, many))
      row['rates'].append((many - few) / (long - short))
      row['peak_mib'].append([low, high])
      print(row['job'], row['rates'][-1], row['peak_mib'][-1], flush=True)
  results = {
    'about': machine.describe(),
    'counts': [few, many],
    'rows': rows,
  }
  output = pathlib.Path(flags.FLAGS.output)
  output.mkdir(parents=True, exist_ok=True)
  text = json.dumps(results, indent=2) + '\n'
  (output / 'results.json').write_text(text)
  (output / 'results.md').write_text(_markdown(results))
  print(_markdown(results))


def _counts() -> list[int]:
  counts = command_line.whole_numbers('counts', flags.FLAGS.counts)
  if len(counts) != 2 or not 0 < counts[0] < counts[1]:
    raise errors.UserError(
      f'--counts={",".join(map(str, counts))} measures nothing; give a smaller '
      'and a larger number, as 500,5000.'
    )
  return counts


def _spawn(job: str, count: int) -> tuple[float, float]:
  """Returns seconds and peak MiB of a job in a process of its own."""
  values = flags.FLAGS
  source = values.source, values.tfds_dir, values.manual_dir
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    return pool.submit(_measure, job, count, source).result()


def _measure(
  job: str, count: int, source: tuple[str, str, str]
) -> tuple[float, float]:
  from alexnet_jax.data import prepare, sources

  repeated = _repeated(sources.open_source(*source), count)
  began = time.perf_counter()
  if job == _PREPARE:
    with tempfile.TemporaryDirectory() as data_dir:
      prepare.prepare(repeated, data_dir)
  else:
    _decode_and_resize(repeated, prepare.IMAGE_SIZE)
  seconds = time.perf_counter() - began
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
  return seconds, peak / 1024


def _repeated(source, count: int):
  """Returns a source of `count` training images, over and over the same."""
  # Files of a few hundred images lie in memory anyway.
  whole = source.examples('train', 0).cache().repeat()
  counts = {'train': count, 'validation': 1}

  def examples(split: str, start: int):
    return whole.skip(start).take(counts[split] - start)

  return dataclasses.replace(source, num_examples=counts, examples=examples)


def _decode_and_resize(source, side: int) -> None:
  """Makes such images as one would first write it with tf.data."""
  import tensorflow as tf

  from alexnet_jax.data import images, pipeline

  def resized(example: dict[str, tf.Tensor]) -> tf.Tensor:
    image = images.decode(example['image'])
    shape = tf.shape(image)[:2]
    image = tf.image.resize(image, shape * side // tf.reduce_min(shape), 'area')
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.cast(image + 0.5, tf.uint8)

  dataset = source.examples('train', 0).map(resized, tf.data.AUTOTUNE)
  dataset = dataset.prefetch(tf.data.AUTOTUNE)
  # The same threads as in prepare: with TensorFlow's own, it is often slower.
  dataset = pipeline.with_threads(dataset, 2 * pipeline.num_cores())
  for _ in dataset.as_numpy_iterator():
    pass


def _markdown(results: dict) -> str:
  few, many = (f'{count:,}' for count in results['counts'])
  rate = {r['job']: statistics.median(r['rates']) for r in results['rows']}
  cells = []
  for row in results['rows']:
    job, rates = row['job'], row['rates']
    peaks = [statistics.median(p) for p in zip(*row['peak_mib'], strict=True)]
    speed = f'{rate[job]:.0f} ({min(rates):.0f}-{max(rates):.0f})'
    ratio = f'{rate[_PREPARE] / rate[job]:.2f}'
    cells.append((job, speed, ratio, *(f'{peak:.0f}' for peak in peaks)))
  head = ('job', 'images/s', 'prepare over it')
  head += (f'peak MiB at {few}', f'at {many}')
  return f"""{machine.heading('Preparation', results['about'])}
Images/s between {few} and {many} images, so that starting does not count:
median, least and most.

{tables.markdown(head, cells)}

At this rate, the 1,281,167 + 50,000 images of ILSVRC-2012 take
{_IMAGENET / rate[_PREPARE] / 3600:.1f} hours on \
{results['about']['cores']} cores.
"""


if __name__ == '__main__':
  command_line.run(main, define_flags)
