"""What a user may type wrong ends in one sentence."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from absl import flags

import main
from alexnet_jax import command_line, validate
from configs import alexnet


@pytest.fixture(autouse=True)
def _fresh_flags():
  flags.FLAGS.unparse_flags()
  names = ('config', 'workdir', 'mode')
  names += ('distributed', 'coordinator', 'num_processes', 'process_id')
  for name in names:
    flags.FLAGS[name].unparse()
  # Each parse defines flags for the fields that it was given.
  for name in list(flags.FLAGS):
    if name.startswith('config.'):
      delattr(flags.FLAGS, name)


def _message(monkeypatch, *arguments):
  argv = ['main.py', *arguments]
  # config_flags finds the fields given on the command line there.
  monkeypatch.setattr('sys.argv', argv)
  with pytest.raises(SystemExit) as caught:
    command_line.guard(main.main)(command_line.parse_flags(argv))
  message = str(caught.value)
  assert message.startswith('error: ')
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
  'arguments, named',
  [
    (['--config=configs/alexnet.py', '--config.sed=1'], 'Did you mean "seed"'),
    (['--config=configs/alexnet.py', '--config.eval.x=1'], '--config.eval.x: '),
    (['--config=configs/alexnet.py', '--noconfig.data.x'], '--noconfig.data.x'),
    (['--config=configs/alexnet.py', '--config.data[0]=1'], '--config.data[0]'),
    (['--config=configs/alexnet.py', '--config.seed.x=1'], 'seed.x'),
    (['--config=configs/alexnet.py', '--config.seed=x'], '--config.seed=x'),
    (['--config=configs/alexnet.py', '--workdri=a'], 'workdri'),
    (['--config=configs/alexnot.py'], 'did you mean configs/alexnet.py?'),
    (['--config=/nowhere/a.py'], 'not exist; give a file of configs/'),
    (['--mode=eval', '--config.data.name=x'], 'be given after --config='),
    (['--config=configs/alexnet.py:imagenot'], 'imagenot'),
    (['--config=configs/alexnet.py:folder=/nowhere'], '/nowhere'),
    (['--config=configs/alexnet.py', '--mode=tset'], 'tset'),
  ],
)
def test_a_wrong_flag_is_named(monkeypatch, arguments, named):
  assert named in _message(monkeypatch, *arguments)


@pytest.mark.parametrize(
  'arguments, named',
  [
    ([], '--workdir is missing'),
    (['--workdir=a'], '--config is missing'),
    (['--workdir=a', 'train'], "'train'"),
  ],
)
def test_a_missing_flag_is_named(monkeypatch, arguments, named):
  assert named in _message(monkeypatch, *arguments)


def test_other_data_of_an_evaluation_are_no_part_of_the_config(
  monkeypatch, tmp_path
):
  config = alexnet.get_config('cifar10')
  (tmp_path / 'config.json').write_text(config.to_json())
  message = _message(
    monkeypatch,
    '--mode=eval',
    f'--workdir={tmp_path}',
    '--config=configs/alexnet.py:mnist',
  )
  assert 'configs/alexnet.py:mnist names other data than the run' in message
  assert 'cifar10; leave it out' in message


def test_missing_imagenet_says_what_to_get_and_where(monkeypatch, tmp_path):
  message = _message(
    monkeypatch,
    '--config=configs/alexnet.py',
    f'--workdir={tmp_path}/run',
    f'--config.data.dir={tmp_path}/data',
    f'--config.data.tfds_dir={tmp_path}/tfds',
    f'--config.data.manual_dir={tmp_path}/tars',
    '--config.num_devices=1',
  )
  for part in (
    'ILSVRC2012_img_train.tar',
    'ILSVRC2012_img_val.tar',
    f'{tmp_path}/tars',
    'python -m alexnet_jax.data.prepare',
    "Kaggle's imagenet-object-localization-challenge",
    '--config=configs/quickstart.py',
    '--config=configs/alexnet.py:shapes',
    '--config=configs/alexnet.py:folder=',
  ):
    assert part in message
  assert not (tmp_path / 'run').exists()


ROOT = pathlib.Path(__file__).parents[1]


def _documented(pattern):
  """What README, configs and main.py say in lines of their own."""
  paths = [ROOT / 'README.md', ROOT / 'main.py', *ROOT.glob('configs/*.py')]
  paths += ROOT.glob('docs/*.md')
  texts = [path.read_text().replace('\\\n', ' ') for path in paths]
  return sorted(set(re.findall(pattern, '\n'.join(texts), re.MULTILINE)))


def _documented_commands():
  commands = _documented(r'^ *(?:srun )?python main\.py (--.*)$')
  return [command for command in commands if '/my/' not in command]


@pytest.mark.parametrize('command', _documented_commands())
def test_documented_commands_parse(monkeypatch, command):
  argv = ['main.py', *shlex.split(command)]
  monkeypatch.setattr('sys.argv', argv)
  assert command_line.parse_flags(argv) == ['main.py']


@pytest.mark.parametrize('command', _documented(r'^ *python -m (\S+\..*)$'))
def test_documented_programs_have_their_flags(command):
  module, *arguments = shlex.split(command)
  program = ROOT.joinpath(*module.split('.')).with_suffix('.py').read_text()
  shared = ('alexnet_jax/tools/flags.py', 'experiments/sweeps/program.py')
  source = program + ''.join((ROOT / name).read_text() for name in shared)
  for argument in arguments:
    name = argument.removeprefix('--').partition('=')[0].partition('.')[0]
    defined = rf"'(--)?{re.escape(name)}',"
    assert not argument.startswith('--') or re.search(defined, source), name


def _anchors(path: pathlib.Path) -> set[str]:
  """Returns the anchors that GitHub gives to the headings of a page."""
  headings = re.findall('^#+ (.*)$', path.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w -]', '', x.lower()).replace(' ', '-') for x in headings}


def test_links_of_the_docs_lead_somewhere():
  for page in (ROOT / 'README.md', *ROOT.glob('docs/*.md')):
    for link in re.findall(r'\]\(([^)]+)\)', page.read_text()):
      if not link.startswith('http'):
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        assert target.exists(), f'{page.name}: {link}'
        assert not anchor or anchor in _anchors(target), f'{page.name}: {link}'


@pytest.mark.parametrize(
  'text, expected',
  [
    ('64', [64.0]),
    ('1,2,3.5', [1.0, 2.0, 3.5]),
    ('(1, 2, 3)', [1.0, 2.0, 3.0]),
    ('1,2', None),
    ('red', None),
    ('1,2,x', None),
    ('True', None),
    ('0', None),
  ],
)
def test_a_scale_is_a_number_or_three(monkeypatch, text, expected):
  argv = ['main.py', '--config=configs/quickstart.py']
  argv += ['--workdir=nowhere', f'--config.data.scale={text}']
  if expected is None:
    assert 'data.scale' in _message(monkeypatch, *argv[1:])
    return
  monkeypatch.setattr('sys.argv', argv)
  command_line.parse_flags(argv)
  config = flags.FLAGS.config
  validate.check_config(config)
  # As config.json has it, and as preprocessing takes it.
  scale = json.loads(config.to_json())['data']['scale']
  np.testing.assert_array_equal(np.atleast_1d(scale), expected)
