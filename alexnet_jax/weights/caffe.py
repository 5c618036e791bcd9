"""Reads files of Caffe: weights (.caffemodel) and mean images (.binaryproto).

Their messages (CAFFE src/caffe/proto/caffe.proto) are declared here at run
time, with the few fields that hold weights. Lists of numbers are declared as
bytes, which have the same encoding, so that NumPy reads them at once.
"""

import pathlib

import numpy as np
from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message,
  message_factory,
)

from alexnet_jax import errors

_FIELD = descriptor_pb2.FieldDescriptorProto
# Message -> fields (name, number, type). A name that starts with * is repeated,
# and a type is a scalar or another message.
_MESSAGES = {
  'BlobShape': (('*dim', 1, 'int64'),),
  'BlobProto': (
    ('num', 1, 'int64'),
    ('channels', 2, 'int64'),
    ('height', 3, 'int64'),
    ('width', 4, 'int64'),
    ('*data', 5, 'bytes'),
    ('shape', 7, 'BlobShape'),
    ('*double_data', 8, 'bytes'),
  ),
  'V1LayerParameter': (('name', 4, 'string'), ('*blobs', 6, 'BlobProto')),
  'LayerParameter': (('name', 1, 'string'), ('*blobs', 7, 'BlobProto')),
  'NetParameter': (
    ('*layers', 2, 'V1LayerParameter'),
    ('*layer', 100, 'LayerParameter'),
  ),
}


def _declare() -> dict[str, type[message.Message]]:
  file = descriptor_pb2.FileDescriptorProto(
    name='alexnet_jax/caffe.proto', package='alexnet_jax.caffe'
  )
  for name, fields in _MESSAGES.items():
    declared = file.message_type.add(name=name)
    for field, number, kind in fields:
      entry = declared.field.add(name=field.lstrip('*'), number=number)
      repeated = field.startswith('*')
      entry.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
      if kind in _MESSAGES:
        entry.type = _FIELD.TYPE_MESSAGE
        entry.type_name = f'.alexnet_jax.caffe.{kind}'
      else:
        entry.type = getattr(_FIELD, f'TYPE_{kind.upper()}')
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClassesForFiles([file.name], pool)


_CLASSES = {name.rpartition('.')[2]: made for name, made in _declare().items()}


def _parse(name: str, path: pathlib.Path) -> message.Message:
  try:
    return _CLASSES[name].FromString(path.read_bytes())
  except message.DecodeError as error:
    raise _unreadable(path) from error


def _unreadable(path: pathlib.Path) -> errors.UserError:
  return errors.UserError(
    f'{path} is damaged or not a file of Caffe; give another file.'
  )


def _array(blob: message.Message) -> np.ndarray:
  """Returns the numbers of a blob, or raises ValueError if they do not fit it.

  Old blobs have four dimensions, of which matrices and vectors have leading
  ones.
  """
  shape = list(blob.shape.dim)
  if not shape:
    shape = [blob.num, blob.channels, blob.height, blob.width]
    while len(shape) > 1 and shape[0] == 1:
      shape.pop(0)
  if min(shape) < 0:
    raise ValueError(shape)
  if blob.double_data:
    values = np.frombuffer(b''.join(blob.double_data), '<f8')
  else:
    values = np.frombuffer(b''.join(blob.data), '<f4')
  return values.reshape(shape).astype(np.float32)


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the weights of a .caffemodel, in the old layer format or the new one.

  Returns:
    'conv1.weight' [out, in / groups, k, k], 'fc6.weight' [out, C * H * W],
    'conv1.bias' [out], ..., of float32. From the third array of a layer on,
    names have numbers, such as 'bn1.2'.

  Raises:
    UserError: If the file is damaged or holds no weights.
  """
  net = _parse('NetParameter', path)
  arrays = {}
  try:
    for layer in (*net.layer, *net.layers):
      for i, blob in enumerate(layer.blobs):
        leaf = ('weight', 'bias')[i] if i < 2 else str(i)
        arrays[f'{layer.name}.{leaf}'] = _array(blob)
  except ValueError as error:
    raise _unreadable(path) from error
  if not arrays:
    raise _unreadable(path)
  return arrays


def read_mean(path: pathlib.Path) -> np.ndarray:
  """Reads the mean image of a .binaryproto: [H, W, 3] of float32, RGB, 0-255.

  Raises:
    UserError: If the file is damaged or holds no image of three colours.
  """
  try:
    mean = _array(_parse('BlobProto', path))  # [3, H, W], BGR
  except ValueError as error:
    raise _unreadable(path) from error
  if mean.ndim != 3 or len(mean) != 3:
    raise errors.UserError(
      f'{path} holds an array {list(mean.shape)}, not a mean image [3, H, W]; '
      'give another file.'
    )
  return np.ascontiguousarray(mean[::-1].transpose(1, 2, 0))
