"""Caffe's files, written without its library (CAFFE caffe.proto)."""

import struct

import numpy as np


def field(number: int, wire_type: int, payload: bytes) -> bytes:
  return varint(number << 3 | wire_type) + payload


def varint(value: int) -> bytes:
  head = b''
  while value > 127:
    head += bytes([value & 127 | 128])
    value >>= 7
  return head + bytes([value])


def block(number: int, payload: bytes) -> bytes:
  return field(number, 2, varint(len(payload)) + payload)


def blob(array: np.ndarray, new: bool) -> bytes:
  numbers = struct.pack(f'<{array.size}f', *array.ravel())
  if new:
    shape = block(7, block(1, b''.join(map(varint, array.shape))))
  else:
    shape = (1,) * (4 - array.ndim) + array.shape
    shape = b''.join(field(i + 1, 0, varint(n)) for i, n in enumerate(shape))
  return shape + block(5, numbers)


def caffemodel(arrays, new: bool) -> bytes:
  """Returns a file of weights; like real ones, it begins with a data layer."""
  layer, name, blobs = (100, 1, 7) if new else (2, 4, 6)
  net = block(1, b'AlexNet') + block(layer, block(name, b'data'))
  for key in dict.fromkeys(name.split('.')[0] for name in arrays):
    fields = block(name, key.encode())
    for leaf in ('weight', 'bias'):
      fields += block(blobs, blob(arrays[f'{key}.{leaf}'], new))
    net += block(layer, fields)
  return net
