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
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from alexnet_jax import command_line, errors, locks
from alexnet_jax.data import check, ilsvrc, records, shards, sources

IMAGE_SIZE = 256
SHARD_SIZE = 10_000  # examples
_SPLITS = ('train', 'validation')


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
  job = shards.Job(source, size, encoding, shard_size, skip_errors)
  root = pathlib.Path(data_dir).expanduser()
  final = root / sources.directory_name(source.name)
  with _only_one(final):
    if not (final / 'info.json').exists():
      _prepare_alone(job, final)
  return records.open_prepared(data_dir, source.name)


@contextlib.contextmanager
def _only_one(final: pathlib.Path) -> Iterator[None]:
  """Waits until no other process prepares the same set."""
  final.parent.mkdir(parents=True, exist_ok=True)
  with open(final.with_name(f'{final.name}.lock'), 'w') as file:
    if not locks.take(file, wait=False):
      print(f'Waiting for the process that is preparing {final}.')
      locks.take(file, wait=True)
    yield


def _prepare_alone(job: shards.Job, final: pathlib.Path) -> None:
  if final.exists():
    raise errors.UserError(
      f'{final} exists but holds no prepared set; remove it, or give another '
      'data.dir.'
    )
  partial = final.with_name(f'{final.name}.partial')
  _open_partial(partial, job)
  if not (partial / 'info.json').exists():
    try:
      written = {
        split: shards.write_split(job, split, partial) for split in _SPLITS
      }
    except errors.UserError:
      if not list(partial.glob('*_progress.npz')):
        shutil.rmtree(partial)
      raise
    _finish(job, written, partial)
  os.rename(partial, final)
  for path in (final / 'job.json', *final.glob('*_progress.npz')):
    path.unlink()


def _open_partial(partial: pathlib.Path, job: shards.Job) -> None:
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
  job: shards.Job, written: dict[str, shards.Progress], directory: pathlib.Path
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
    manual_dir: the directory of the ILSVRC tars or of Kaggle's ILSVRC/, if
      they are still there.
  """
  name, known = prepared.info['source'], prepared.info['fingerprint']
  given = sources.fingerprint(name, manual_dir)
  if given and known and given != known:
    raise errors.UserError(
      f'{prepared.directory} was prepared from other files than '
      f'{manual_dir or name} has now; remove it to prepare these, or give '
      'another data directory.'
    )


def _prepare_small(data: ml_collections.ConfigDict) -> records.PreparedSet:
  if data.name == sources.IMAGENET:
    raise errors.UserError(
      f'ImageNet (data.name={data.name!r}) is not prepared in {data.dir}: to '
      'train now without it, run `python main.py '
      '--config=configs/quickstart.py --workdir=runs/quickstart` (minutes on a '
      'CPU), or give '
      '--config=configs/alexnet.py:shapes or '
      '--config=configs/alexnet.py:folder=/my/pictures; to get ImageNet, '
      f'{ilsvrc.instructions(data.manual_dir or "tars/")}, and run '
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
  add(
    '--manual_dir',
    default='',
    help="directory of the ILSVRC tars or of Kaggle's ILSVRC/",
  )
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
