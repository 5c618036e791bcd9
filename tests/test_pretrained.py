"""Other people's weights as runs, and back, against their nets in PyTorch."""

import numpy as np
import pytest

from alexnet_jax import errors, evaluate, trained
from alexnet_jax.weights import (
  caffe,
  convert,
  pretrained,
  publish,
  weight_files,
)
from configs import bvlc_alexnet, caffenet, torchvision_alexnet
from tests import caffe_files, pictures

torch = pytest.importorskip('torch')

from tests import torch_nets  # noqa: E402

IMAGES = np.stack([pictures.smooth(i, 256, 256) for i in range(3)])
ARCHITECTURES = {
  'torchvision': (torchvision_alexnet, torchvision_alexnet.MEAN, 'RGB'),
  'bvlc_alexnet': (bvlc_alexnet, pretrained.CAFFE_MEAN, 'BGR'),
  'caffenet': (caffenet, pretrained.CAFFE_MEAN, 'BGR'),
}


def _net(architecture):
  if architecture == 'torchvision':
    return torch_nets.randomize(torch_nets.Torchvision())
  pool_first = architecture == 'caffenet'
  return torch_nets.randomize(torch_nets.Caffe(pool_first))


def _arrays(net):
  return {name: x.numpy() for name, x in net.state_dict().items()}


def _import(architecture, path, workdir, **fields):
  module, mean, order = ARCHITECTURES[architecture]
  config = torch_nets.narrow(module.get_config())
  network = pretrained.Architecture(config, mean, order)
  pretrained.import_run(network, path, workdir, **fields)
  return trained.load(str(workdir), {'num_devices': 1})


def _check_same(run, net):
  """Within 1e-4 of the largest logarithm of a probability."""
  expected = torch_nets.log_probabilities(net, IMAGES)
  assert np.ptp(expected, axis=0).max() > 0.1  # pictures differ
  actual = evaluate.create_predictor(run)(IMAGES)
  assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
  'architecture, suffix',
  [
    ('torchvision', '.pth'),
    ('bvlc_alexnet', '.safetensors'),
    ('caffenet', '.safetensors'),
  ],
)
def test_imported_nets_are_pytorchs_and_go_back_bit_for_bit(
  tmp_path, architecture, suffix
):
  net = _net(architecture)
  arrays = _arrays(net)
  path, back = tmp_path / f'in{suffix}', tmp_path / f'out{suffix}'
  weight_files.write(path, arrays, {})
  run = _import(architecture, path, tmp_path / 'run')
  assert run.step == 0 and run.class_names[9] == 'class 9'
  names = 'torchvision' if architecture == 'torchvision' else 'caffe'
  publish.export_weights(run, back, names)
  returned, _ = weight_files.read(back)
  assert returned.keys() == arrays.keys()
  for name in arrays:
    np.testing.assert_array_equal(returned[name], arrays[name])
  _check_same(run, net)


def test_a_wrapped_checkpoint_is_a_state_dict(tmp_path):
  # As PyTorch's ImageNet example saves them.
  net = _net('torchvision')
  state = {
    name.replace('features.', 'features.module.'): x
    for name, x in net.state_dict().items()
  }
  torch.save({'epoch': 90, 'state_dict': state}, tmp_path / 'a.pth')
  arrays, _ = weight_files.read(tmp_path / 'a.pth')
  names = convert.from_torchvision_names(arrays)
  expected = convert.from_torchvision_names(_arrays(net))
  assert names.keys() == expected.keys()


@pytest.mark.parametrize('new', [False, True])
def test_caffe_s_arrays_are_read(tmp_path, new):
  path, expected = tmp_path / 'a.caffemodel', _arrays(_net('bvlc_alexnet'))
  path.write_bytes(caffe_files.caffemodel(expected, new))
  arrays, _ = weight_files.read(path)
  assert arrays.keys() == expected.keys()
  for name in arrays:
    np.testing.assert_array_equal(arrays[name], expected[name])


def test_caffe_s_files_are_its_net(tmp_path):
  net = _net('bvlc_alexnet')
  path, mean_path = tmp_path / 'a.caffemodel', tmp_path / 'mean.binaryproto'
  path.write_bytes(caffe_files.caffemodel(_arrays(net), new=True))
  mean = np.random.default_rng(0).uniform(60, 160, (3, 256, 256))
  mean_path.write_bytes(
    caffe_files.blob(mean.astype(np.float32)[None], new=False)
  )
  net.mean = torch.from_numpy(mean)
  image = caffe.read_mean(mean_path)
  _check_same(_import('bvlc_alexnet', path, tmp_path / 'run', mean=image), net)


def test_all_that_does_not_fit_is_named(tmp_path):
  arrays = _arrays(_net('caffenet'))
  arrays['fc9.bias'] = arrays.pop('conv3.bias')
  arrays['fc6.weight'] = arrays['fc6.weight'][:, 1:]
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, arrays, {})
  with pytest.raises(errors.UserError) as caught:
    _import('caffenet', path, tmp_path / 'run')
  for part in (
    'conv3.bias is missing',
    'fc9.bias is extra',
    'fc6.weight is [32, 287], not [32, 288]',
  ):
    assert part in str(caught.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('suffix', weight_files.READABLE)
@pytest.mark.parametrize('content', [b'', b'no weights', bytes(range(256))])
def test_files_of_other_things_end_in_a_sentence(tmp_path, suffix, content):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='give another file'):
    weight_files.read(path)


def test_cut_files_end_in_a_sentence(tmp_path):
  arrays = _arrays(_net('caffenet'))
  whole = tmp_path / 'a.caffemodel'
  whole.write_bytes(caffe_files.caffemodel(arrays, new=True))
  for suffix in ('.safetensors', '.pth'):
    weight_files.write(tmp_path / f'a{suffix}', arrays, {})
  for suffix in ('.caffemodel', '.safetensors', '.pth'):
    path = tmp_path / f'a{suffix}'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(errors.UserError, match='give another file'):
      weight_files.read(path)


def test_a_workdir_in_use_is_refused(tmp_path):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, _arrays(_net('torchvision')), {})
  _import('torchvision', path, tmp_path / 'run')
  with pytest.raises(errors.UserError, match='is in use'):
    _import('torchvision', path, tmp_path / 'run')


def test_a_thousand_classes_are_imagenets(tmp_path):
  net = torch_nets.randomize(torch_nets.Torchvision(classes=1000))
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, _arrays(net), {})
  run = _import('torchvision', path, tmp_path / 'run')
  assert len(run.class_names) == 1000
  assert [run.class_names[i] for i in (0, 999)] == ['n01440764', 'n15075141']
