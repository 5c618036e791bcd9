r"""Times the training step: against PyTorch, and without each of its tricks.

    python -m experiments.benchmarks.step --torch_python=PYTHON

Sections are chosen with --sections. Each is written when it is done; sections
that --output holds already stay. Batches of random pictures stay on the device,
so this is the step alone (`experiments.benchmarks.input` measures what feeds
it).

How it is fair:

* Each contender is a process of its own, with all cores and the same malloc
  settings. Each runs alone while it is measured, in a random order that is new
  in every round (see `contest`). Medians are reported, and ratios are medians
  of the rounds' ratios to the first row of those that took turns.
* A measurement begins after a step that does not count, and ends with the step
  that passes --seconds: one step at least.
* All networks but ResNet-18 are built from the same table of layers. PyTorch's
  response norm runs over the channels of both towers, as its users would write
  it.
* Ours alone adds colour noise, sums metrics and checks that all is finite. Its
  evaluation counts errors, that of the others is the forward pass.
* "One square product" multiplies two square matrices, with as many operations
  as the step has.
* Every round records how many cores other programs used meanwhile.
"""

import dataclasses
import importlib
import json
import pathlib
import statistics
import sys
from collections.abc import Iterable

from absl import flags

from alexnet_jax import command_line
from alexnet_jax.tools import tables
from experiments import notebook, relatives
from experiments.benchmarks import contest, machine, tricks

_TRAIN, _EVALUATE = 'train', 'evaluate'


@dataclasses.dataclass(frozen=True)
class Contender:
  """A training step that is measured.

  Attributes:
    name: Name in results.
    module: Module of this package that has it.
    options: Arguments of its Step, beside config and batch.
    overrides: Fields of the config, by dotted name.
    environment: Variables of its process.
    config: Config as `Section` has it, or '' for that of the section.
    only_on: 'gpu' or 'cpu' if it takes part on that alone.
  """

  name: str = 'alexnet_jax'
  module: str = 'step_jax'
  options: dict = dataclasses.field(default_factory=dict)
  overrides: dict = dataclasses.field(default_factory=dict)
  environment: dict = dataclasses.field(default_factory=dict)
  config: str = ''
  only_on: str = ''


def _torch(mode: str, *, fast_lrn: bool = False, only_on='') -> Contender:
  name = f'PyTorch {mode}' + (', fast LRN' if fast_lrn else '')
  options = {'mode': mode, 'fast_lrn': fast_lrn}
  return Contender(name, 'step_torch', options, only_on=only_on)


_OURS = Contender()
_TORCH = [
  *map(_torch, ('eager', 'channels_last', 'compile')),
  _torch('CUDA graphs', only_on='gpu'),
]
_PRODUCT = Contender('one square product', 'step_product')
_MAIN = [_OURS, *_TORCH, _PRODUCT]
_FLAX = Contender('plain Flax', 'step_flax')
_ALL = [*_MAIN, _FLAX]
_OURS_IN_FLOAT32 = Contender(
  'alexnet_jax, float32', overrides={'model.dtype': 'float32'}
)
_FAST_TORCH = [
  _torch(mode, fast_lrn=True) for mode in ('channels_last', 'compile')
]


def _without(names: Iterable[str]) -> list[list[Contender]]:
  """Returns groups of the whole step and steps without a trick each."""
  others = [Contender(name, options={'without': name}) for name in names]
  malloc = {'GLIBC_TUNABLES': ''}
  others.append(Contender('default malloc', environment=malloc))
  return [[_OURS, *others[i : i + 4]] for i in range(0, len(others), 4)]


def _relatives() -> list[Contender]:
  experiment = relatives.EXPERIMENT
  configs = {
    name: pathlib.Path(variant.config or experiment.config).stem
    for name, variant in experiment.variants.items()
  }
  # Ratios are to the first.
  names = sorted(configs, key='AlexNet'.__ne__)
  return [Contender(name, config=configs[name]) for name in names]


def _by_devices() -> list[Contender]:
  return [
    Contender(
      f'alexnet_jax, virtual devices: {count}',
      environment={'JAX_NUM_CPU_DEVICES': str(count)},
      only_on='cpu',
    )
    for count in (1, 2, 4)
  ]


@dataclasses.dataclass(frozen=True)
class Section:
  """Groups of contenders.

  Attributes:
    title: Headline in the report.
    config: File of configs/, or FILE:DATA.
    groups: Contenders that take turns. Groups follow one another, because
      memory does not hold all.
    overrides: Fields of all configs, by dotted name.
    measures: What is measured.
  """

  title: str
  config: str
  groups: list[list[Contender]]
  overrides: dict = dataclasses.field(default_factory=dict)
  measures: tuple[str, ...] = (_TRAIN, _EVALUATE)


SECTIONS = {
  'lrn': Section('AlexNet, float32', 'alexnet', [_MAIN]),
  'flax': Section(
    'AlexNet, float32, against plain Flax', 'alexnet', [[_OURS, _FLAX]]
  ),
  'fast_lrn': Section(
    'AlexNet, float32, against PyTorch with a response norm like ours',
    'alexnet',
    [[_OURS, *_FAST_TORCH]],
  ),
  'no_lrn': Section(
    'AlexNet without LRN, float32', 'alexnet', [_MAIN], {'model.omit': 'lrn'}
  ),
  'one_lrn': Section(
    "The source's net #167, with one LRN, float32",
    'alexnet_2012',
    [_MAIN],
    notebook.variant('167').overrides,
  ),
  'torchvision': Section(
    "Torchvision's AlexNet, float32", 'torchvision_alexnet', [_MAIN]
  ),
  'resnet18': Section('ResNet-18, 224 pixels, float32', 'resnet18', [_MAIN]),
  'bfloat16': Section(
    'AlexNet, bfloat16',
    'alexnet',
    [[*_MAIN, _OURS_IN_FLOAT32, _torch('compile', fast_lrn=True)]],
    {'model.dtype': 'bfloat16'},
  ),
  'bfloat16_no_lrn': Section(
    'AlexNet without LRN, bfloat16',
    'alexnet',
    [[*_MAIN, _OURS_IN_FLOAT32]],
    {'model.dtype': 'bfloat16', 'model.omit': 'lrn'},
  ),
  'cifar10': Section('CIFAR-10 18pct net, float32', 'cifar10', [_ALL]),
  'cifar10_lrn': Section(
    'CIFAR-10 conv-local net with LRN, float32',
    'cifar10_lrn',
    [[*_ALL, *_FAST_TORCH]],
    {'eval.views': 1},
  ),
  'ablation': Section(
    'One trick less', 'alexnet', _without(tricks.OF_ALEXNET), {}, (_TRAIN,)
  ),
  'ablation_cifar10': Section(
    'One trick less: CIFAR-10 18pct net',
    'cifar10',
    _without(tricks.OF_CIFAR10),
    {},
    (_TRAIN,),
  ),
  'ablation_cifar10_lrn': Section(
    'One trick less: CIFAR-10 conv-local net',
    'cifar10_lrn',
    _without(tricks.OF_CONV_LOCAL),
    {},
    (_TRAIN,),
  ),
  'ablation_vgg16': Section(
    'One trick less: VGG-16 of 32 pixels',
    'vgg16:cifar10',
    _without([tricks.PLACES]),
    {},
    (_TRAIN,),
  ),
  'ablation_efficientnet_b0': Section(
    'One trick less: EfficientNet-B0 of 32 pixels',
    'efficientnet_b0:cifar10',
    _without([tricks.PLACES]),
    {},
    (_TRAIN,),
  ),
  'relatives': Section(
    'Eight networks, 224 pixels, bfloat16',
    'alexnet',
    [_relatives()],
    {
      'model.dtype': 'bfloat16',
      'data.channels': 3,
      'data.image_size': 256,
      'data.crop_size': 224,
    },
  ),
  'devices': Section(
    'By number of virtual devices', 'alexnet', [_by_devices()], {}, (_TRAIN,)
  ),
}


def define_flags() -> None:
  """Defines the flags of the program."""
  names = list(SECTIONS)
  flags.DEFINE_multi_enum('sections', names, names, 'Which to measure.')
  contest.define_flags('runs/benchmark_step', 5, 'PyTorch')
  flags.DEFINE_integer('batch_size', 128, 'Images a batch.', lower_bound=1)
  flags.DEFINE_integer('seed', 0, 'Seed of pictures, networks and orders.')


def main(_) -> None:
  """Measures the sections that the flags name, and writes results."""
  values = flags.FLAGS
  contest.check_python('torch_python', values.torch_python)
  output = pathlib.Path(values.output)
  output.mkdir(parents=True, exist_ok=True)
  path = output / 'results.json'
  results = json.loads(path.read_text()) if path.exists() else {}
  for name in values.sections:
    results.pop(name, None)  # the newest comes last
    results[name] = _measure(SECTIONS[name])
    path.write_text(json.dumps(results, indent=2) + '\n')
    (output / 'results.md').write_text(_markdown(results))
    print(_section_markdown(name, results[name]), flush=True)


def _measure(section: Section) -> dict:
  """Returns the rows of a section, and what must stand beside them."""
  names = ('batch_size', 'rounds', 'seconds', 'seed')
  settings = {name: flags.FLAGS[name].value for name in names}
  rows = []
  for number, group in enumerate(section.groups):
    device = 'gpu' if machine.has_gpu() else 'cpu'
    present = [c for c in group if c.only_on in ('', device)]
    found = contest.run(
      [_process(contender, section) for contender in present],
      settings['rounds'],
      settings['seconds'],
      settings['seed'],
    )
    rows += [{'group': number, **row} for row in found]
  return {'about': machine.describe(), 'settings': settings, 'rows': rows}


def _process(contender: Contender, section: Section) -> contest.Contender:
  """Returns the process of a contender."""
  name, *data = (contender.config or section.config).split(':')
  config = importlib.import_module(f'configs.{name}').get_config(*data)
  config.seed = flags.FLAGS.seed
  config.batch_size = flags.FLAGS.batch_size
  config.update_from_flattened_dict(section.overrides | contender.overrides)
  job = {
    'config': json.loads(config.to_json()),
    'options': contender.options,
    'measures': section.measures,
  }
  is_torch = contender.module in ('step_torch', 'step_product')
  python = flags.FLAGS.torch_python if is_torch else sys.executable
  module = f'{__spec__.parent}.{contender.module}'
  variables = {
    'GLIBC_TUNABLES': contest.MALLOC,
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  }
  return contest.Contender(
    contender.name,
    [python, '-m', module, json.dumps(job)],
    variables | contender.environment,
  )


def _markdown(results: dict) -> str:
  """Returns the text of results.md."""
  *_, newest = results.values()
  parts = [
    machine.heading('Training step', newest['about']),
    'The command above made the newest measurement; every section names its '
    'commit\nand settings. Rates of one section compare, those of two do not: '
    'machines have\nslow hours. Images/s are medians of the rounds, least and '
    "most in brackets.\nRatios are medians of the rounds' ratios to the first "
    'row of those that took\nturns.\n',
  ]
  parts += [
    _section_markdown(name, results[name])
    for name in SECTIONS
    if name in results
  ]
  return '\n'.join(parts)


def _section_markdown(name: str, section: dict) -> str:
  spec, groups, head = SECTIONS[name], {}, ['']
  for what in spec.measures:
    head += [f'{what}, images/s', 'ratio']
  for row in section['rows']:
    groups.setdefault(row['group'], []).append(row)
  lines = [
    line for rows in groups.values() for line in _lines(rows, spec.measures)
  ]
  table = tables.markdown([*head, 'peak memory, GiB'], lines)
  return f'## {spec.title}\n\n{table}\n\n{_conditions(section)}\n'


def _lines(rows: list[dict], measures: tuple[str, ...]) -> list[list[str]]:
  """Returns a line for each contender of a group."""
  found = {(row['name'], row.get('what')): row for row in rows}
  lines, first = [], rows[0]['name']
  for name in dict.fromkeys(row['name'] for row in rows):
    missing = found.get((name, None), {})
    pairs = [
      (found.get((name, what), missing), found.get((first, what), {}))
      for what in measures
    ]
    cells = [
      cell for row, other in pairs for cell in (_rate(row), _ratio(row, other))
    ]
    memory = pairs[0][0].get('peak_memory_gib')
    lines.append([name, *cells, f'{memory:.1f}' if memory else ''])
  return lines


def _rate(row: dict) -> str:
  if 'rates' not in row:
    return contest.why_missing(row)
  median, low, high = (
    f'{x:,.0f}' if x >= 100 else f'{x:.1f}'
    for x in (row['median'], row['min'], row['max'])
  )
  return f'{median} ({low}-{high})'


def _ratio(row: dict, other: dict) -> str:
  """Returns the median of the rounds' ratios."""
  if 'rates' not in row or 'rates' not in other:
    return ''
  pairs = zip(row['rates'], other['rates'], strict=True)
  return f'{statistics.median(a / b for a, b in pairs):.2f}'


def _conditions(section: dict) -> str:
  rows, settings = section['rows'], section['settings']
  return (
    f'Commit {section["about"]["git_commit"]}, {section["about"]["devices"][0]}'
    f'; batches of {settings["batch_size"]} where nothing else is said, '
    f'{settings["rounds"]} rounds of at least {settings["seconds"]} s, seed '
    f'{settings["seed"]}. {contest.versions(rows)}. Memory is that of the GPU, '
    'if there is one, where float32 products are TF32 for all. '
    f'{contest.disturbance(rows)}'
  )


if __name__ == '__main__':
  command_line.run(main, define_flags)
