"""Other people's weights as runs, and back, against their nets in PyTorch."""

import numpy as np
import pytest

from alexnet_jax import errors, trained
from alexnet_jax.tools import export, import_weights
from alexnet_jax.weights import caffe, torch_layout, weight_files
from configs import bvlc_alexnet, caffenet, resnet18, torchvision_alexnet
from tests import caffe_files, pictures

torch = pytest.importorskip('torch')

import safetensors.torch  # noqa: E402, F401

from tests import torch_nets  # noqa: E402

IMAGES = np.stack([pictures.smooth(i, 256, 256) for i in range(3)])
CONFIGS = {
  'torchvision': torchvision_alexnet,
  'bvlc_alexnet': bvlc_alexnet,
  'caffenet': caffenet,
}


def _net(name):
  if name == 'torchvision':
    return torch_nets.randomize(torch_nets.Torchvision())
  return torch_nets.randomize(torch_nets.Caffe(name == 'caffenet'))


def _arrays(net):
  return {name: x.numpy() for name, x in net.state_dict().items()}


def _write(path, name, arrays):
  if path.suffix == '.caffemodel':
    new = name == 'bvlc_alexnet'
    path.write_bytes(caffe_files.caffemodel(arrays, new))
  else:
    weight_files.write(path, arrays)


def _import(name, path, workdir, **fields):
  config = torch_nets.narrow(CONFIGS[name].get_config())
  fields['inputs'] = 'torchvision' if name == 'torchvision' else 'caffe'
  import_weights.import_run(config, path, workdir, **fields)
  return trained.load(str(workdir), {'num_devices': 1})


def _check_same(run, net):
  """Logarithms of probabilities agree within 1e-4 of the largest one."""
  expected = torch_nets.log_probabilities(net, IMAGES)
  assert np.ptp(expected, axis=0).max() > 0.1  # pictures differ
  actual = trained.create_predictor(run, len(IMAGES))(IMAGES)
  assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
  'name, suffix',
  [
    ('torchvision', '.safetensors'),
    ('bvlc_alexnet', '.caffemodel'),  # of the new layer format
    ('caffenet', '.caffemodel'),  # of the old one
  ],
)
def test_imported_nets_are_pytorchs_and_go_back_bit_for_bit(
  tmp_path, name, suffix
):
  net, path = _net(name), tmp_path / f'in{suffix}'
  arrays = _arrays(net)
  _write(path, name, arrays)
  run = _import(name, path, tmp_path / 'run')
  assert run.step == 0 and run.class_names[9] == 'class 9'
  back = tmp_path / 'out.safetensors'
  names = 'torchvision' if name == 'torchvision' else 'caffe'
  export.export_weights(run, back, names)
  returned, _ = weight_files.read(back)
  assert returned.keys() == arrays.keys()
  for key in arrays:
    np.testing.assert_array_equal(returned[key], arrays[key])
  _check_same(run, net)


def test_a_mean_image_is_the_nets(tmp_path):
  net = _net('bvlc_alexnet')
  path, mean_path = tmp_path / 'a.safetensors', tmp_path / 'mean.binaryproto'
  weight_files.write(path, _arrays(net))
  mean = np.random.default_rng(0).uniform(60, 160, (3, 256, 256))
  mean_path.write_bytes(
    caffe_files.blob(mean.astype(np.float32)[None], new=False)
  )
  net.mean = torch.from_numpy(mean)
  image = caffe.read_mean(mean_path)
  _check_same(_import('bvlc_alexnet', path, tmp_path / 'run', mean=image), net)


def test_the_sentence_about_pth_files_helps(tmp_path, monkeypatch):
  arrays = _arrays(_net('caffenet'))
  state = {name: torch.from_numpy(x) for name, x in arrays.items()}
  torch.save(state, tmp_path / 'a.pth')
  with pytest.raises(errors.UserError, match=r'a\.pth') as caught:
    weight_files.read(tmp_path / 'a.pth')
  remedy = str(caught.value).split('`')[1]
  monkeypatch.chdir(tmp_path)
  eval(remedy)
  returned, metadata = weight_files.read(tmp_path / 'a.safetensors')
  assert metadata == {} and returned.keys() == arrays.keys()
  np.testing.assert_array_equal(returned['fc8.bias'], arrays['fc8.bias'])


def test_names_of_data_parallel_are_known():
  # PyTorch's ImageNet example saves such names.
  arrays = {'features.module.0.weight': 0, 'module.classifier.6.bias': 1}
  renamed = torch_layout.from_torchvision_names(arrays)
  assert renamed == {'conv1.weight': 0, 'fc8.bias': 1}


def test_all_that_does_not_fit_is_named(tmp_path):
  arrays = _arrays(_net('caffenet'))
  arrays['fc9.bias'] = arrays.pop('conv3.bias')
  arrays['fc6.weight'] = arrays['fc6.weight'][:, 1:]
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, arrays)
  with pytest.raises(errors.UserError) as caught:
    _import('caffenet', path, tmp_path / 'run')
  for part in (
    'conv3.bias is missing',
    'fc9.bias is extra',
    'fc6.weight is [32, 287], not [32, 288]',
  ):
    assert part in str(caught.value)
  assert not (tmp_path / 'run').exists()


def test_a_thousand_classes_are_imagenets_and_a_workdir_stays(tmp_path):
  net = torch_nets.randomize(torch_nets.Torchvision(classes=1000))
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, _arrays(net))
  run = _import('torchvision', path, tmp_path / 'run')
  assert len(run.class_names) == 1000
  assert [run.class_names[i] for i in (0, 999)] == ['n01440764', 'n15075141']
  with pytest.raises(errors.UserError, match='is in use'):
    _import('torchvision', path, tmp_path / 'run')


def test_weights_that_do_not_tell_their_inputs_are_refused(tmp_path):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, _arrays(_net('caffenet')))
  config = torch_nets.narrow(caffenet.get_config())
  with pytest.raises(errors.UserError, match='--inputs is missing'):
    import_weights.import_run(config, path, tmp_path / 'run')


@pytest.mark.parametrize(
  'names, match',
  [
    (['a'] * 10, 'twice'),
    ([*'abcdefghi', 'j\nk'], 'one line'),
    ([*'abcdefghi', '\ud800'], 'one line'),
    ([*'abc'], '3 lines for 10 classes'),
  ],
)
def test_class_names_are_checked(tmp_path, names, match):
  path = tmp_path / 'a.safetensors'
  weight_files.write(path, _arrays(_net('caffenet')))
  with pytest.raises(errors.UserError, match=match):
    _import('caffenet', path, tmp_path / 'run', names=names)
  assert not (tmp_path / 'run').exists()


def test_a_resnet_of_torchvision_is_a_run(tmp_path):
  config = resnet18.get_config('cifar10')
  config.model.resnet.update({'blocks': (1, 1), 'width': 4})
  net = torch_nets.ResNet((1, 1), 4, False, 'B', 'cifar')
  net = torch_nets.randomize(net).eval()
  path = tmp_path / 'net.safetensors'
  weight_files.write(path, _arrays(net))
  workdir = tmp_path / 'run'
  import_weights.import_run(config, path, workdir, inputs='torchvision')
  run = trained.load(str(workdir), {'num_devices': 1})
  images = np.stack([pictures.smooth(i, 32, 32) for i in range(3)])
  means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  inputs = torch.from_numpy((images / 255 - means) / stds).float()
  with torch.no_grad():
    expected = net(inputs.permute(0, 3, 1, 2)).log_softmax(1).numpy()
  actual = trained.create_predictor(run, len(images))(images)
  assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
  config.model.resnet.width = 8
  with pytest.raises(errors.UserError, match='bn1/mean is .4., not .8.'):
    import_weights.import_run(
      config, path, tmp_path / 'other', inputs='torchvision'
    )
