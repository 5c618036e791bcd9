r"""Prepares a data set once, as the paper did offline (section 2).

Decodes each picture, scales its shorter side to 256, keeps the central
256x256, and in the same pass sums up the training set's mean image and RGB
covariance over the pixels that will be read back. Run it as

    python -m alexnet_jax.data.prepare --source=imagenet2012 \
        --data_dir=data/ --manual_dir=tars/

and find the result in data/imagenet2012/. See `sources` for other names. A
preparation that was killed goes on after its last whole shard.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf
import tqdm
from absl import logging
from array_record.python import array_record_module

from alexnet_jax import command_line, errors
from alexnet_jax.data import (
  check,
  ilsvrc,
  images,
  pipeline,
  records,
  sources,
  statistics,
)

IMAGE_SIZE = 256
SHARD_SIZE = 10_000  # examples
_SPLITS = ('train', 'validation')
Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Job:
  """What is to be prepared, and how.

  Attributes:
    source: the pictures.
    size: side of the stored images, in pixels.
    encoding: records.JPEG or records.RAW.
    shard_size: examples of the source a shard.
    skip_errors: whether pictures that cannot be read are left out.
  """

  source: sources.Source
  size: int
  encoding: str
  shard_size: int
  skip_errors: bool

  def num_shards(self, split: str) -> int:
    return -(-self.source.num_examples[split] // self.shard_size)

  def identity(self) -> dict[str, Any]:
    """What must be the same for finished shards to be of use."""
    return {
      'source': self.source.name,
      'fingerprint': self.source.fingerprint,
      'examples': self.source.num_examples,
      'image_size': self.size,
      'encoding': self.encoding,
      'shard_size': self.shard_size,
    }


@dataclasses.dataclass
class _Progress:
  """What the finished shards of a split hold.

  Attributes:
    shards: {'images', 'sha256'} of each.
    labels: of all their images.
    skipped: names of pictures that could not be read.
    sums: over all their pixels.
  """

  shards: list[dict]
  labels: list[int]
  skipped: list[str]
  sums: statistics.PixelSums

  @classmethod
  def load(cls, path: pathlib.Path, size: int) -> '_Progress':
    """Reads what `save` wrote; nothing is finished where it did not."""
    sums = statistics.PixelSums(size)
    if not path.exists():
      return cls([], [], [], sums)
    with np.load(path) as arrays:
      sums.count = int(arrays['count'])
      sums.pixels, sums.products = arrays['pixels'], arrays['products']
      lists = json.loads(str(arrays['lists']))
      return cls(labels=arrays['labels'].tolist(), sums=sums, **lists)

  def save(self, path: pathlib.Path) -> None:
    """Writes a new file and renames it: a kill leaves the old one."""
    lists = {'shards': self.shards, 'skipped': self.skipped}
    new = path.with_suffix('.new.npz')
    np.savez(
      new,
      labels=np.array(self.labels, np.int32),
      lists=json.dumps(lists),
      **vars(self.sums),
    )
    os.replace(new, path)


def _stored_form(example: Example, job: _Job) -> Example:
  """What is stored, and the pixels that it reads back as."""
  pixels = images.resize_and_crop(images.decode(example['image']), job.size)
  stored = tf.constant(b'')
  if job.encoding == records.JPEG:
    stored = images.encode(pixels)
    # The same decoder as in training, so that the mean is of what it sees.
    pixels = images.decode_crop(stored, [0, 0, job.size, job.size])
  return {
    'stored': stored,
    'pixels': pixels,
    'label': example['label'],
    'products': images.color_products(pixels),
  }


def _stored_forms(
  job: _Job, split: str, start: int, on_error: Callable[[str], None]
) -> Iterator[Example | None]:
  """Yields a split's examples in order, behind a progress bar.

  Args:
    job: what is to be prepared.
    split: 'train' or 'validation'.
    start: number of the first example.
    on_error: is told the name of a picture that cannot be read; where it
      returns, None is yielded in the picture's place.

  Raises:
    UserError: where the source ends early.
  """
  source, count = job.source, job.source.num_examples[split]
  # Enough to hide what this thread does; AUTOTUNE's buffers would grow.
  ahead = 2 * pipeline.num_cores()
  dataset = source.examples(split, start).map(
    lambda example: _stored_form(example, job), ahead, deterministic=True
  )
  dataset = pipeline.with_threads(dataset.prefetch(ahead), ahead)
  iterator = dataset.as_numpy_iterator()
  bar = tqdm.tqdm(total=count, initial=start, unit='image')
  bar.set_description(f'prepare {source.name} {split}')
  with bar:
    for index in range(start, count):
      try:
        yield next(iterator)
      except tf.errors.InvalidArgumentError:  # a decoder's
        example = next(source.examples(split, index).as_numpy_iterator())
        on_error(example['name'].decode())
        yield None
      except tf.errors.OpError as error:
        raise errors.UserError(
          f'image {index} of {split} of {source.name} cannot be read '
          f'({errors.first_line(error)}); repair the source and prepare again.'
        ) from error
      except StopIteration:
        raise errors.UserError(
          f'data.name={source.name!r} ends after {index} images of {split} '
          f'instead of {count}; let TFDS build it again.'
        ) from None
      bar.update()


def _stop(name: str) -> None:
  raise errors.UserError(
    f'{name} cannot be read as an image; leave such files out with '
    '--on_error=skip, or replace the file and prepare all again.'
  )


def _write_shard(
  path: pathlib.Path,
  examples: Iterable[Example | None],
  job: _Job,
  progress: _Progress,
) -> None:
  """Writes one shard and adds it to `progress`."""
  known = len(progress.labels)
  with (
    errors.no_room_as_os_error(path),
    contextlib.closing(_open_writer(path, job.encoding)) as writer,
  ):
    for example in filter(None, examples):
      stored = example['stored'] or example['pixels'].tobytes()
      writer.write(stored)
      progress.labels.append(int(example['label']))
      progress.sums.add(example['pixels'], example['products'])
  with open(path, 'rb') as file:
    os.fsync(file)
  count = len(progress.labels) - known
  progress.shards.append({'images': count, 'sha256': records.sha256(path)})


def _open_writer(path: pathlib.Path, encoding: str):
  if encoding == records.RAW:
    return open(path, 'wb')
  # Random access reads nothing else, and JPEG does not compress again.
  options = 'group_size:1,uncompressed'
  return array_record_module.ArrayRecordWriter(str(path), options)


def _write_split(job: _Job, split: str, directory: pathlib.Path) -> _Progress:
  """Writes what is missing of a split's shards."""
  saved, count = directory / f'{split}_progress.npz', job.num_shards(split)
  progress = _Progress.load(saved, job.size)
  if progress.skipped and not job.skip_errors:
    _stop(progress.skipped[0])
  start = len(progress.shards) * job.shard_size
  on_error = progress.skipped.append if job.skip_errors else _stop
  forms = _stored_forms(job, split, start, on_error)
  # Closed, so that no bar is drawn after an error's sentence.
  with contextlib.closing(forms) as examples:
    for shard in range(len(progress.shards), count):
      path = records.shard_path(directory, split, shard, count, job.encoding)
      slice_ = itertools.islice(examples, job.shard_size)
      _write_shard(path, slice_, job, progress)
      progress.save(saved)
  if not progress.labels:
    raise errors.UserError(
      f'{job.source.name}: no picture of {split} can be read (the first is '
      f'{progress.skipped[0]}); check where the files come from.'
    )
  return progress


def _open_partial(partial: pathlib.Path, job: _Job) -> None:
  """Keeps the finished shards of the same job.

  Raises:
    UserError: where those of another job would be lost.
  """
  path = partial / 'job.json'
  identity = json.dumps(job.identity(), sort_keys=True)
  if path.exists() and path.read_text() == identity:
    return
  if list(partial.glob('*_progress.npz')):
    raise errors.UserError(
      f'{partial} holds finished shards of another preparation (see its '
      'job.json: other files, size or encoding); finish that one, or remove it.'
    )
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  path.write_text(identity)


def _finish(
  job: _Job, written: dict[str, _Progress], directory: pathlib.Path
) -> None:
  """Writes what describes the shards; info.json last, in one go."""
  for split, progress in written.items():
    labels = np.array(progress.labels, np.int32)
    np.save(directory / f'{split}_labels.npy', labels)
  sums, names = written['train'].sums, '\n'.join(job.source.class_names)
  np.savez(directory / 'statistics.npz', **sums.statistics())
  (directory / 'class_names.txt').write_text(names + '\n')
  small = ['class_names.txt', 'statistics.npz']
  small += [f'{split}_labels.npy' for split in written]
  info = {
    'source': job.source.name,
    'fingerprint': job.source.fingerprint,
    'image_size': job.size,
    'native_size': job.source.native_size,
    'encoding': job.encoding,
    'splits': {split: len(p.labels) for split, p in written.items()},
    'shards': {split: p.shards for split, p in written.items()},
    'skipped': {split: p.skipped for split, p in written.items()},
    'sha256': {name: records.sha256(directory / name) for name in small},
  }
  new = directory / 'info.new.json'
  new.write_text(json.dumps(info, indent=2) + '\n')
  os.replace(new, directory / 'info.json')


@contextlib.contextmanager
def _only_one(final: pathlib.Path) -> Iterator[None]:
  """Waits until no other process prepares the same set."""
  final.parent.mkdir(parents=True, exist_ok=True)
  with open(final.with_name(f'{final.name}.lock'), 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'Waiting for the process that is preparing {final}.')
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def prepare(
  source: sources.Source,
  data_dir: str,
  image_size: int = IMAGE_SIZE,
  encoding: str = '',
  *,
  skip_errors: bool = False,
  shard_size: int = SHARD_SIZE,
) -> records.PreparedSet:
  """Writes a prepared set under `data_dir` and opens it.

  The directory gets its name only when everything in it is complete; what is
  finished of it before lies beside, in `<name>.partial`.

  Args:
    source: what to prepare.
    data_dir: root of prepared sets.
    image_size: side of the stored images; sets whose images are smaller keep
      their size.
    encoding: 'jpeg' (quality 95), 'raw', or '' for jpeg unless the images are
      under 64 pixels, which are kept exactly.
    skip_errors: whether pictures that cannot be read are left out, and named
      in info.json, rather than stop the preparation.
    shard_size: examples a shard.

  Raises:
    UserError: where an image cannot be read, or the place is taken.
  """
  size = min(image_size, source.native_size or image_size)
  encoding = encoding or (records.RAW if size < 64 else records.JPEG)
  job = _Job(source, size, encoding, shard_size, skip_errors)
  root = pathlib.Path(data_dir).expanduser()
  final = root / sources.directory_name(source.name)
  with _only_one(final):
    if not (final / 'info.json').exists():
      _prepare_alone(job, final)
  return records.open_prepared(data_dir, source.name)


def _prepare_alone(job: _Job, final: pathlib.Path) -> None:
  if final.exists():
    raise errors.UserError(
      f'{final} exists but holds no prepared set; remove it, or give another '
      'data.dir.'
    )
  partial = final.with_name(f'{final.name}.partial')
  _open_partial(partial, job)
  if not (partial / 'info.json').exists():
    try:
      written = {split: _write_split(job, split, partial) for split in _SPLITS}
    except errors.UserError:
      if not list(partial.glob('*_progress.npz')):
        shutil.rmtree(partial)
      raise
    _finish(job, written, partial)
  os.rename(partial, final)
  for path in (final / 'job.json', *final.glob('*_progress.npz')):
    path.unlink()


def open_or_prepare(data: ml_collections.ConfigDict) -> records.PreparedSet:
  """Opens what `config.data` names, preparing it first where it is small.

  Raises:
    UserError: where it is missing and large, or of another image size.
  """
  prepared = records.open_prepared(data.dir, data.name)
  if prepared is None:
    prepared = _prepare_small(data)
  if prepared.image_size != data.image_size:
    raise errors.UserError(
      f'data.image_size={data.image_size} but {prepared.directory} holds '
      f'images of {prepared.image_size}: give that size, or another data.dir.'
    )
  for warning in prepared.warnings():
    logging.warning(warning)
  return prepared


def check_origin(prepared: records.PreparedSet, manual_dir: str) -> None:
  """Raises UserError where a set was prepared from other files.

  Args:
    prepared: the set.
    manual_dir: where the ILSVRC tars lie, if they still do.
  """
  name, known = prepared.info['source'], prepared.info['fingerprint']
  given = sources.fingerprint(name, manual_dir)
  if given and known and given != known:
    raise errors.UserError(
      f'{prepared.directory} was prepared from other files than '
      f'{manual_dir or name} has now; remove it to prepare these, or give '
      'another data_dir.'
    )


def _prepare_small(data: ml_collections.ConfigDict) -> records.PreparedSet:
  if data.name == sources.IMAGENET:
    raise errors.UserError(
      f'data.name={data.name!r} is not prepared in {data.dir}: '
      f'{ilsvrc.instructions(data.manual_dir or "tars/")}; then run '
      f'`{_command(data)}`.'
    )
  source = sources.open_source(data.name, data.tfds_dir, data.manual_dir)
  if not source.is_small:
    raise errors.UserError(
      f'data.name={data.name!r} is not prepared in {data.dir} and has more '
      f'images than a run prepares by itself: run `{_command(data)}` first.'
    )
  return prepare(source, data.dir, data.image_size)


def _command(data: ml_collections.ConfigDict) -> str:
  """The command that prepares what `config.data` names."""
  manual_dir = 'tars/' if data.name == sources.IMAGENET else ''
  options = {
    'source': data.name,
    'data_dir': data.dir,
    'tfds_dir': data.tfds_dir,
    'manual_dir': data.manual_dir or manual_dir,
    'image_size': '' if data.image_size == IMAGE_SIZE else data.image_size,
  }
  given = [f'--{name}={value}' for name, value in options.items() if value]
  return shlex.join(['python', '-m', 'alexnet_jax.data.prepare', *given])


def _parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m alexnet_jax.data.prepare',
    description=__doc__.splitlines()[0],
  )
  add = parser.add_argument
  add('--source', required=True, help='see alexnet_jax/data/sources.py')
  add('--data_dir', default='data/', help='root of the result')
  add('--tfds_dir', default='', help="TFDS's own directory")
  add('--manual_dir', default='', help='the ILSVRC tars')
  add('--image_size', type=int, help=f'default: {IMAGE_SIZE}')
  add('--encoding', choices=[records.JPEG, records.RAW])
  add(
    '--on_error',
    choices=['stop', 'skip'],
    default='stop',
    help='what to do about files that cannot be read',
  )
  add(
    '--verify_tars',
    action='store_true',
    help="compare the ILSVRC tars' MD5 sums with the published ones first",
  )
  add(
    '--check',
    action='store_true',
    help='read a prepared set: counts, digests, decoding, statistics',
  )
  return parser.parse_args()


def _check_same(prepared: records.PreparedSet, given: dict) -> None:
  """Raises UserError where a set is not as the command line asks."""
  info = prepared.info
  asked = {name: value for name, value in given.items() if value}
  if asked.get('image_size', 0) > info['image_size'] == info['native_size']:
    del asked['image_size']  # smaller pictures keep their size
  for name, value in asked.items():
    if value != info[name]:
      raise errors.UserError(
        f'--{name}={value} but {prepared.directory} was prepared with '
        f'{info[name]}; give another data_dir.'
      )


def _open_or_prepare(args: argparse.Namespace) -> records.PreparedSet:
  """Does what the command line asks for."""
  if args.verify_tars:
    ilsvrc.verify(args.manual_dir)
  prepared = records.open_prepared(args.data_dir, args.source)
  if prepared is None and args.check:
    raise errors.UserError(
      f'--check: {args.data_dir} has no prepared {args.source}; prepare it '
      'first, without --check.'
    )
  if prepared is None:
    prepared = prepare(
      sources.open_source(args.source, args.tfds_dir, args.manual_dir),
      args.data_dir,
      args.image_size or IMAGE_SIZE,
      args.encoding or '',
      skip_errors=args.on_error == 'skip',
    )
  _check_same(
    prepared, {'image_size': args.image_size, 'encoding': args.encoding}
  )
  check_origin(prepared, args.manual_dir)
  return prepared


def main() -> None:
  """Prepares, or checks, what the command line names."""
  args = _parse_args()
  tf.config.set_visible_devices([], 'GPU')
  with command_line.one_sentence():
    prepared = _open_or_prepare(args)
    if args.check:
      check.check(prepared)
  print(_summary(prepared))


def _summary(prepared: records.PreparedSet) -> str:
  counts = prepared.info['splits']
  skipped = sum(map(len, prepared.info['skipped'].values()))
  return (
    f'{prepared.directory}: {counts["train"]:,} + {counts["validation"]:,} '
    f'images of {prepared.image_size} pixels, {prepared.info["encoding"]}'
    + (f'; {skipped} skipped, see info.json' if skipped else '')
  )


if __name__ == '__main__':
  main()
