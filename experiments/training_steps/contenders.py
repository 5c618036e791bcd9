"""Who takes part in which section of the benchmark, and with which settings."""

import dataclasses
from collections.abc import Iterable

from configs import alexnet, cifar10, cifar10_lrn
from experiments.benchmarking import machine
from experiments.training_steps import with_jax

OURS = 'alexnet_jax'
PLAIN = 'plain Flax'
PRODUCT = 'matrix product'
CONFIGS = {
  'alexnet': alexnet,
  'cifar10': cifar10,
  'cifar10_lrn': cifar10_lrn,
}
# glibc's malloc: huge pages, and memory that stays with the process.
MALLOC = {
  'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:'
  'glibc.malloc.trim_threshold=17179869184'
}
DEFAULT_MALLOC = {'GLIBC_TUNABLES': ''}


@dataclasses.dataclass(frozen=True)
class Contender:
  """A process that measures.

  Attributes:
    name: for the report.
    framework: 'alexnet_jax', 'flax', 'torch' or 'product'.
    arguments: of its Step, beside config and batch.
    overrides: fields of the config, by dotted name.
    environment: variables of its process.
    measures: 'train', 'evaluate', or all 'layers'.
  """

  name: str
  framework: str
  arguments: dict = dataclasses.field(default_factory=dict)
  overrides: dict = dataclasses.field(default_factory=dict)
  environment: dict = dataclasses.field(default_factory=lambda: dict(MALLOC))
  measures: tuple[str, ...] = ('train', 'evaluate')


def _torch(mode: str, fast_lrn: bool = False, **fields) -> Contender:
  name = f'PyTorch {mode}' + (', fast LRN' if fast_lrn else '')
  arguments = {'mode': mode, 'fast_lrn': fast_lrn}
  return Contender(name, 'torch', arguments, **fields)


def _torch_modes(**fields) -> list[Contender]:
  """All modes; the last is for GPUs only."""
  modes = ['eager', 'channels_last', 'compile']
  if machine.gpu():
    modes.append('CUDA graphs')
  return [_torch(mode, **fields) for mode in modes]


def _all(**fields) -> list[Contender]:
  """Ours, plain Flax, PyTorch's modes and the machine's limit."""
  return [
    Contender(OURS, 'alexnet_jax', **fields),
    Contender(PLAIN, 'flax', **fields),
    *_torch_modes(**fields),
    Contender(PRODUCT, 'product', measures=('train',)),
  ]


def _fast_torch(**fields) -> list[Contender]:
  return [_torch(m, True, **fields) for m in ('channels_last', 'compile')]


def _bfloat16() -> list[Contender]:
  overrides = {'model.dtype': 'bfloat16'}
  return [
    Contender(OURS, 'alexnet_jax', overrides=overrides),
    Contender(f'{OURS}, float32', 'alexnet_jax'),
    *_torch_modes(overrides=overrides),
    _torch('compile', True, overrides=overrides),
    Contender(PRODUCT, 'product', {}, overrides, measures=('train',)),
  ]


def _ablation(names: Iterable[str]) -> list[list[Contender]]:
  """One trick less each, beside the whole."""
  ours = {'framework': 'alexnet_jax', 'measures': ('train',)}
  others = [
    *(Contender(name, arguments={'without': name}, **ours) for name in names),
    Contender('default malloc', environment=DEFAULT_MALLOC, **ours),
  ]
  whole = Contender(OURS, **ours)
  return [[whole, *others[i : i + 4]] for i in range(0, len(others), 4)]


def _views() -> list[Contender]:
  return [
    Contender(
      f'{views} view{"s" if views > 1 else ""}',
      'alexnet_jax',
      overrides={'eval.views': views},
      measures=('evaluate',),
    )
    for views in (1, 10)
  ]


def _scaling() -> list[list[Contender]]:
  """By batch size and by number of virtual devices."""
  sizes = [
    [
      Contender(
        f'{name}, batch {size}',
        framework,
        arguments,
        {'batch_size': size},
        measures=('train',),
      )
      for name, framework, arguments in (
        (OURS, 'alexnet_jax', {}),
        ('PyTorch channels_last', 'torch', {'mode': 'channels_last'}),
      )
    ]
    for size in (32, 64, 128, 256, 512)
  ]
  devices = [
    Contender(
      f'{OURS}, {count} virtual device{"s" if count > 1 else ""}',
      'alexnet_jax',
      environment=MALLOC | {'JAX_NUM_CPU_DEVICES': str(count)},
      measures=('train',),
    )
    for count in (1, 2, 4)
  ]
  return sizes if machine.gpu() else [*sizes, devices]


def _layers(**fields) -> list[Contender]:
  ours = Contender(OURS, 'alexnet_jax', measures=('layers',), **fields)
  return [ours, _torch('channels_last', measures=('layers',), **fields)]


_NO_LRN = {'model.omit': 'lrn'}
_ONE_VIEW = {'eval.views': 1}


@dataclasses.dataclass(frozen=True)
class Section:
  """Groups of contenders.

  Attributes:
    title: for the report.
    config: file of configs/.
    groups: of contenders that take turns, so that a slow minute hits them
      alike; one group after the other, as memory does not hold all.
  """

  title: str
  config: str
  groups: list[list[Contender]]


SECTIONS = {
  'lrn': Section('AlexNet, float32', 'alexnet', [_all()]),
  'fast_lrn': Section(
    'AlexNet, float32, against PyTorch with a response norm like ours',
    'alexnet',
    [[Contender(OURS, 'alexnet_jax'), *_fast_torch()]],
  ),
  'no_lrn': Section(
    'AlexNet without LRN, float32', 'alexnet', [_all(overrides=_NO_LRN)]
  ),
  'bfloat16': Section('AlexNet, bfloat16', 'alexnet', [_bfloat16()]),
  'cifar10': Section('CIFAR-10 18pct net, float32', 'cifar10', [_all()]),
  'cifar10_lrn': Section(
    'CIFAR-10 conv-local net with LRN, float32',
    'cifar10_lrn',
    [
      [
        *_all(overrides=_ONE_VIEW),
        *_fast_torch(overrides=_ONE_VIEW, measures=('train',)),
      ]
    ],
  ),
  'ablation': Section(
    'One trick less', 'alexnet', _ablation(with_jax.ABLATIONS_OF_ALEXNET)
  ),
  'ablation_cifar10_lrn': Section(
    'One trick less: CIFAR-10 conv-local net',
    'cifar10_lrn',
    _ablation(with_jax.ABLATIONS_OF_CONV_LOCAL),
  ),
  'layers': Section('By layer', 'alexnet', [_layers()]),
  'layers_no_lrn': Section(
    'By layer, without LRN', 'alexnet', [_layers(overrides=_NO_LRN)]
  ),
  'views': Section('Evaluation by views', 'alexnet', [_views()]),
  'scaling': Section('By batch size and devices', 'alexnet', _scaling()),
}
