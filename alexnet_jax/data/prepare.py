r"""Prepares a data set once, as the paper did offline (section 2).

Decodes each picture, scales its shorter side to 256, keeps the central
256x256, and in the same pass sums up the training set's mean image and RGB
covariance over the pixels that will be read back. Run it as

    python -m alexnet_jax.data.prepare --source=imagenet2012 \
        --data_dir=data/ --manual_dir=tars/

and find the result in data/imagenet2012/. See `sources` for other names. A
preparation that was killed continues after its last finished shard. With
--check, a prepared set is read again and compared with its info.json.
"""

import json
import pathlib
import shlex
import shutil

import ml_collections
import numpy as np
import tqdm
from absl import flags, logging

from alexnet_jax import atomic, command_line, errors, locks, paths
from alexnet_jax.data import (
  ilsvrc,
  images,
  pipeline,
  records,
  shards,
  sources,
)

IMAGE_SIZE = 256
SHARD_SIZE = 10_000  # examples
_CHECK_BATCH_SIZE = 64
# A run does not prepare more images than these by itself.
_MAX_UNASKED = 100_000


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

  The directory gets its name only when everything in it is complete. Until
  then, finished shards are kept beside it, in `<name>.partial`.

  Args:
    source: Source of the pictures.
    data_dir: Root of the prepared sets.
    image_size: Side of the stored images; sets whose images are smaller keep
      their size.
    encoding: 'jpeg' (quality 95), 'raw', or '' for jpeg unless the images are
      under 64 pixels, which are kept exactly.
    skip_errors: Whether pictures that cannot be read are left out and named in
      info.json. If not, they stop the preparation.
    shard_size: Number of examples per shard.

  Raises:
    UserError: If an image cannot be read, or the directory has other content.
  """
  size = min(image_size, source.native_size or image_size)
  encoding = encoding or (records.RAW if size < 64 else records.JPEG)
  job = shards.Job(source, size, encoding, shard_size, skip_errors)
  root = paths.local('data.dir', data_dir)
  final = root / sources.directory_name(source.name)
  lock = final.with_name(f'{final.name}.lock')
  with locks.alone(lock, f'is preparing {final}'):
    if not (final / 'info.json').exists():
      _prepare_locked(job, final)
  return records.open_prepared(data_dir, source.name)


def _prepare_locked(job: shards.Job, final: pathlib.Path) -> None:
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
        split: shards.write_split(job, split, partial)
        for split in job.source.num_examples
      }
    except errors.UserError:
      if not list(partial.glob('*_progress.npz')):
        shutil.rmtree(partial)
      raise
    _finish(job, written, partial)
  atomic.rename_directory(partial, final)
  for path in (final / 'job.json', *final.glob('*_progress.npz')):
    path.unlink()


def _open_partial(partial: pathlib.Path, job: shards.Job) -> None:
  """Creates the directory of a preparation, or keeps that of the same job.

  Raises:
    UserError: If finished shards of another job would be lost.
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
  """Writes the files that describe the shards; info.json last, atomically."""
  for split, progress in written.items():
    labels = np.array(progress.labels, np.int32)
    np.save(directory / f'{split}_labels.npy', labels)
  first, *_ = written.values()
  sums, names = first.sums, '\n'.join(job.source.class_names)
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
  text = json.dumps(info, indent=2) + '\n'
  atomic.write_text(directory / 'info.json', text)


def open_or_prepare(data: ml_collections.ConfigDict) -> records.PreparedSet:
  """Opens the prepared set that a config names; prepares it if it is small.

  Args:
    data: Config of the data, `config.data`.

  Raises:
    UserError: If the set is missing and large, or has another image size.
  """
  prepared = records.open_prepared(data.dir, data.name)
  if prepared is None:
    prepared = _prepare_small(data)
  if prepared.image_size != data.image_size:
    raise errors.UserError(
      f'data.image_size={data.image_size} but {prepared.directory} holds '
      f'images of {prepared.image_size}: give that size, or another directory, '
      f'such as --config.data.dir=data{data.image_size}/.'
    )
  for warning in prepared.warnings():
    logging.warning(warning)
  return prepared


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
  if sum(source.num_examples.values()) > _MAX_UNASKED:
    raise errors.UserError(
      f'data.name={data.name!r} is not prepared in {data.dir} and has more '
      f'images than a run prepares by itself: run `{_command(data)}` first.'
    )
  return prepare(source, data.dir, data.image_size)


def _command(data: ml_collections.ConfigDict) -> str:
  """Returns the command that prepares the set that a config names."""
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


def check_origin(prepared: records.PreparedSet, manual_dir: str) -> None:
  """Raises UserError if a set was prepared from other files than there are now.

  Args:
    prepared: Prepared set.
    manual_dir: Directory of the ILSVRC tars or of Kaggle's ILSVRC/; '' if they
      are no longer there.
  """
  name, known = prepared.info['source'], prepared.info['fingerprint']
  try:
    given = sources.fingerprint(name, manual_dir)
  except errors.UserError:  # they could not be prepared
    given = 'other files'
  if given and known and given != known:
    raise errors.UserError(
      f'{prepared.directory} was prepared from other files than '
      f'{manual_dir or name} has now; put those back, or remove the prepared '
      'directory (or give another data directory) to prepare what is there.'
    )


def check(prepared: records.PreparedSet) -> None:
  """Reads a whole prepared set and compares it with its info.json.

  All files must have their digests, every image must decode, and the images
  must have the stored mean image and covariance.

  Raises:
    UserError: If a file is not as it was written; the message names it.
  """
  first, *_ = prepared.info['splits']
  for split in prepared.info['splits']:
    _check_digests(prepared, split)
    sums = _pixel_sums(prepared, split)
    if split == first:
      _check_statistics(prepared, sums)


def _check_digests(prepared: records.PreparedSet, split: str) -> None:
  infos = prepared.info['shards'][split]
  pairs = list(zip(prepared.shard_paths(split), infos, strict=True))
  for path, info in tqdm.tqdm(pairs, desc=f'digests of {split}', unit='shard'):
    records.check_digest(path, info['sha256'])


def _pixel_sums(prepared: records.PreparedSet, split: str) -> shards.PixelSums:
  """Decodes every image of a split and sums up their pixels."""
  sums = shards.PixelSums(prepared.image_size)
  batches = pipeline.eval_batches(prepared, split, _CHECK_BATCH_SIZE)
  with tqdm.tqdm(total=prepared.num_examples(split), unit='image') as bar:
    bar.set_description(f'images of {split}')
    for batch in batches:
      for image in batch['image'][batch['mask'] > 0]:
        sums.add(image, images.color_products(image).numpy())
        bar.update()
  return sums


def _check_statistics(
  prepared: records.PreparedSet, sums: shards.PixelSums
) -> None:
  stored = prepared.statistics()
  for name, value in sums.statistics().items():
    if not np.array_equal(stored[name], value):
      raise errors.UserError(
        f'{prepared.directory / "statistics.npz"} has another {name} than the '
        'images; remove the directory and prepare the set again.'
      )


def define_flags() -> None:
  """Defines the flags of `python -m alexnet_jax.data.prepare`."""
  flags.DEFINE_string(
    'source',
    None,
    'imagenet2012, a TFDS name, folder=PATH, test=PATH or shapes.',
  )
  flags.DEFINE_string('data_dir', 'data/', 'Root of the prepared sets.')
  flags.DEFINE_string('tfds_dir', '', "Directory of TFDS's own copies.")
  flags.DEFINE_string(
    'manual_dir', '', "Directory of the ILSVRC tars or of Kaggle's ILSVRC/."
  )
  low, high = images.SIZES
  flags.DEFINE_integer(
    'image_size',
    None,
    f'Side of the stored images; default {IMAGE_SIZE}.',
    lower_bound=low,
    upper_bound=high,
  )
  flags.DEFINE_enum(
    'encoding',
    None,
    [records.JPEG, records.RAW],
    'Form of the stored images; default jpeg, or raw under 64 pixels.',
  )
  flags.DEFINE_enum(
    'on_error',
    'stop',
    ['stop', 'skip'],
    'Whether pictures that cannot be read stop the preparation or are skipped.',
  )
  flags.DEFINE_bool(
    'verify_tars',
    False,
    "Compare the ILSVRC tars' MD5 sums with the published ones first.",
  )
  flags.DEFINE_bool(
    'check', False, 'Read a prepared set and compare it with its info.json.'
  )


def main(_: list[str]) -> None:
  """Prepares, or checks, the set that the flags name."""
  given = flags.FLAGS
  if not given.source:
    raise errors.UserError(
      '--source is missing; give imagenet2012, a TFDS name, folder=PATH or '
      'shapes.'
    )
  if given.verify_tars:
    ilsvrc.verify(given.manual_dir)
  prepared = records.open_prepared(given.data_dir, given.source)
  if prepared is None:
    prepared = _prepare_from_flags(given)
  _check_same(prepared, given)
  check_origin(prepared, given.manual_dir)
  if given.check:
    check(prepared)
  print(_summary(prepared))


def _prepare_from_flags(given: flags.FlagValues) -> records.PreparedSet:
  if given.check:
    raise errors.UserError(
      f'--check: {given.data_dir} has no prepared {given.source}; prepare it '
      'first, without --check.'
    )
  return prepare(
    sources.open_source(given.source, given.tfds_dir, given.manual_dir),
    given.data_dir,
    given.image_size or IMAGE_SIZE,
    given.encoding or '',
    skip_errors=given.on_error == 'skip',
  )


def _check_same(prepared: records.PreparedSet, given: flags.FlagValues) -> None:
  """Raises UserError if a set has another size or encoding than the flags."""
  info = prepared.info
  # Pictures smaller than asked for keep their size.
  keeps_size = (
    (given.image_size or 0) > info['image_size'] == info['native_size']
  )
  names = ['encoding'] if keeps_size else ['encoding', 'image_size']
  for name in names:
    value = given[name].value
    if value is not None and value != info[name]:
      raise errors.UserError(
        f'--{name}={value} but {prepared.directory} was prepared with '
        f'{info[name]}; give another --data_dir.'
      )


def _summary(prepared: records.PreparedSet) -> str:
  counts = ' + '.join(f'{n:,}' for n in prepared.info['splits'].values())
  skipped = sum(map(len, prepared.info['skipped'].values()))
  return (
    f'{prepared.directory}: {counts} images of {prepared.image_size} '
    f'pixels, {prepared.info["encoding"]}'
    + (f'; {skipped} skipped, see info.json' if skipped else '')
  )


if __name__ == '__main__':
  command_line.run(main, define_flags)
