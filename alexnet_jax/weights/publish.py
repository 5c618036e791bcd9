"""Hands a run's network to other programs: as weights, or as one function."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from alexnet_jax import errors, evaluate, trained
from alexnet_jax.train_state import create_model
from alexnet_jax.weights import convert, weight_files

PROGRAM = '.stablehlo'
_METADATA = ('channel_order', 'mean', 'scale', 'crop_size', 'class_names')
# Through red, green and blue.
_STEPS = {'RGB': 1, 'BGR': -1}
_LARGEST = 1e6  # of numbers about pixels, which are 0 to 255
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export_weights(
  run: trained.Trained, path: pathlib.Path, names: str
) -> None:
  """Writes the state_dict of the same network in PyTorch.

  Convolutions that read only their own tower are one of that many groups; norms
  and pools are those of the run's config. Metadata of .safetensors say what
  turns pixels (0-255) into inputs: (pixels - mean) / scale of a crop, in their
  channel order.

  Args:
    run: on one device.
    path: a file of a format that `weight_files` writes.
    names: 'plain' (conv1.weight), 'torchvision' (features.0.weight), or
      'caffe', which is plain with inputs of blue, green, red.

  Raises:
    UserError: where a layer has no counterpart, or no such name, or the format
      is unknown.
  """
  order = 'BGR' if names == 'caffe' else 'RGB'
  arrays = convert.to_torch(run.config, jax.device_get(run.params), order)
  if names == 'torchvision':
    arrays = convert.to_torchvision_names(arrays)
  weight_files.write(path, arrays, _metadata(run, order))


def _metadata(run: trained.Trained, order: str) -> dict[str, str]:
  """Of a mean image, the means of its channels."""
  step = _STEPS[order]
  means = run.process.mean_image.mean((0, 1), np.float64)[::step]
  scales = np.broadcast_to(run.process.scale, 3)[::step]
  values = {
    'channel_order': order,
    'mean': means.tolist(),
    'scale': scales.tolist(),
    'crop_size': int(run.process.crop_size),
    'class_names': run.class_names,
  }
  return {name: json.dumps(value) for name, value in values.items()}


def read_metadata(metadata: dict[str, str]) -> dict[str, Any]:
  """What `export_weights` wrote into a file; mean and scale in RGB.

  Args:
    metadata: of a file; empty where it has none, or others than ours.

  Returns:
    'channel_order', 'mean', 'scale', 'crop_size' and 'class_names', or nothing.

  Raises:
    UserError: where values are not what `export_weights` writes.
  """
  if not metadata.keys() >= set(_METADATA):
    return {}
  try:
    told = {name: json.loads(metadata[name]) for name in _METADATA}
    step = _STEPS[told['channel_order']]
    told |= {name: told[name][::step] for name in ('mean', 'scale')}
    is_valid = _is_valid(**told)
  except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
    is_valid = False
  if not is_valid:
    raise errors.UserError(
      'metadata of the weights are damaged; write the file again with '
      '`python -m experiments.export`, or save its arrays without metadata.'
    )
  return told


def _is_valid(
  mean: Any, scale: Any, crop_size: Any, class_names: Any, **unused
) -> bool:
  numbers = np.asarray([mean, scale])
  return (
    numbers.shape == (2, 3)
    and numbers.dtype.kind in 'if'
    and 0 < numbers[1].min() <= np.abs(numbers).max() <= _LARGEST
    and type(crop_size) is int
    and crop_size > 0
    and isinstance(class_names, list)
    and all(isinstance(name, str) for name in class_names)
  )


def export_program(run: trained.Trained, path: pathlib.Path) -> None:
  """Writes a function of pictures, weights and preprocessing included.

  It maps whole images [b, S, S, 3] of uint8 to probabilities [b, classes],
  averaged over the run's `eval.views`, and needs nothing but JAX:

      jax.export.deserialize(open(path, 'rb').read()).call(images)

  Beside it, PATH.json has class names, image size, step and views.

  Args:
    run: on one device.
    path: where to.
  """
  size = run.config.data.image_size
  (count,) = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
  program = jax.jit(_probabilities(run))
  exported = export.export(program, platforms=_PLATFORMS)(images)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(exported.serialize())
  about = {
    'class_names': run.class_names,
    'image_size': size,
    'step': run.step,
    'views': run.config.eval.views,
  }
  path.with_name(path.name + '.json').write_text(json.dumps(about) + '\n')


def _probabilities(run: trained.Trained) -> Callable[[jax.Array], jax.Array]:
  log_probabilities = functools.partial(
    evaluate.predict,
    create_model(run.config),
    run.process,
    run.config.eval.views,
    jax.device_get(run.params),
  )
  return lambda images: jnp.exp(log_probabilities(images))
