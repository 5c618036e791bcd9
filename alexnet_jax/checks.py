"""What should hold before a long run: `--config.checks=True`.

The first batch of the run, of up to 32 images, without crops, mirror images,
colour noise, dropout and decay, tells in a minute or two on a GPU whether a
network learns at all:

    the loss at step 0 is within 0.5 of ln(classes)
    every parameter has a gradient
    of a layer's channels, at most half are zero for all of the images
    response norms divide by at most ten times what they divide zeros by
    in 200 steps, the loss on the batch comes down to a tenth of ln(classes)

The last one fails where the loss is 'stuck at chance', the most frequent
complaint about AlexNet: with sigma .01 and biases of 1, units of the upper
layers see almost the same for every image.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from alexnet_jax import durations, errors, hosts, parallel, train_step, validate
from alexnet_jax.data import pipeline, prepare, preprocessing
from alexnet_jax.models import alexnet, plain
from alexnet_jax.train_state import TrainState, create_train_state

_MOST_IMAGES = 32
_LOSS_MARGIN = 0.5
_MOST_DEAD = 0.5
_MOST_NORM = 10.0
_STEPS = 200
_OVERFITTED = 0.1  # of ln(classes)
_LOOK_EVERY = 10  # steps
_STUCK = (
  'the loss is stuck near chance: set --config.model.init=he and every '
  'init_bias to 0, with --config.data.scale=64, or try a tenth or ten times '
  'the optimizer.learning_rate'
)


@dataclasses.dataclass(frozen=True)
class Check:
  """One of them.

  Attributes:
    name: what was looked at.
    found: as measured.
    passed: whether that is as it should be.
    remedy: what to do if not.
  """

  name: str
  found: str
  passed: bool
  remedy: str


def run(config: ml_collections.ConfigDict) -> list[Check]:
  """All checks, printed as they are made.

  Args:
    config: of the run, which is not changed.

  Raises:
    UserError: naming the checks that did not pass, and remedies.
  """
  validate.check_config(config)
  if config.init_from:
    raise errors.UserError(
      f'checks={config.checks} looks at a network from scratch, not at '
      f'init_from={config.init_from}; leave out one of them.'
    )
  subject = _create_subject(config)
  checks = []
  for check in subject.checks():
    checks.append(check)
    mark = 'ok ' if check.passed else 'BAD'
    hosts.say(f'check: {mark} {check.name}: {check.found}')
  failed = [c for c in checks if not c.passed]
  if failed:
    told = '; '.join(f'{c.name}: {c.found}: {c.remedy}' for c in failed)
    raise errors.UserError(f'{told}; or leave out --config.checks.')
  return checks


def _sober(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same network and rates on one device, with nothing random."""
  sober = config.copy_and_resolve_references()
  sober.batch_size = min(_MOST_IMAGES, config.batch_size)
  sober.num_devices = 1
  sober.data.update({'random_crop': False, 'flip': False})
  sober.data.color_noise = 'none'
  sober.model.omit = ','.join(filter(None, (sober.model.omit, 'dropout')))
  sober.optimizer.weight_decay = 0.0
  return sober


def _create_subject(config: ml_collections.ConfigDict) -> '_Subject':
  config = _sober(config)
  prepared = prepare.open_or_prepare(config.data)
  prepare.check_origin(prepared, config.data.manual_dir)
  validate.check_num_classes(config, prepared)
  count = pipeline.num_train_examples(prepared, config.data)
  plan = parallel.OneDevice(jax.local_devices()[0], config.model.towers)
  process = preprocessing.from_statistics(prepared, config.data)
  steps = durations.count_steps(config, count)
  batches = pipeline.train_batches(
    prepared,
    config.data,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=0,
    end_step=1,
  )
  return _Subject(
    config,
    train_step.create_program(config, plan, process, steps),
    plan.put_batch(next(batches)),
    create_train_state(config),
  )


@dataclasses.dataclass(frozen=True)
class _Subject:
  """What is checked.

  Attributes:
    config: sober.
    program: of a step.
    batch: the first.
    state: canonical, at step 0.
  """

  config: ml_collections.ConfigDict
  program: train_step.Program
  batch: pipeline.Batch
  state: TrainState

  @property
  def chance(self) -> float:
    """The loss of a network that knows nothing."""
    return math.log(self.config.model.num_classes)

  def checks(self) -> Iterator[Check]:
    """In the order of their cost."""
    loss, gradients, made = self._look()
    yield self._first_loss(float(loss))
    yield _gradients(gradients)
    yield _dead_channels(made)
    if norms := _norms(self.config.model, made):
      yield norms
    yield self._overfits()

  def _look(self) -> tuple[jax.Array, dict, dict]:
    """The loss, its gradients, and what each layer makes, by tower."""

    def loss(params: dict) -> tuple[jax.Array, dict]:
      logits, kept = self.program.model.apply(
        {'params': params},
        self.program.process(self.batch['image']),
        capture_intermediates=True,
        mutable=['intermediates'],
      )
      log_probs = jax.nn.log_softmax(logits)
      own = jnp.take_along_axis(log_probs, self.batch['label'][:, None], 1)
      return -own.mean(), kept['intermediates']

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, made), gradients = step(self.state.params)
    return value, gradients, made

  def _first_loss(self, loss: float) -> Check:
    return Check(
      'loss at step 0',
      f'{loss:.3f}, ln(classes) is {self.chance:.3f}',
      abs(loss - self.chance) <= _LOSS_MARGIN,
      'lower model.*.init_std of the head, or divide inputs by data.scale=64',
    )

  def _overfits(self) -> Check:
    began = time.perf_counter()
    loss, steps = self._train()
    seconds = time.perf_counter() - began
    return Check(
      f'overfitting {self.config.batch_size} images',
      f'loss {loss:.3f} after {steps} steps in {seconds:.0f} s',
      loss <= _OVERFITTED * self.chance,
      _STUCK,
    )

  def _train(self) -> tuple[float, int]:
    """The last loss, and the steps that it took."""
    step = self.program.compile()
    state = self.program.put_state(self.state)
    for number in range(1, _STEPS + 1):
      state, sums = step(state, self.batch)
      if number % _LOOK_EVERY == 0:
        loss = float(sums['loss'] / sums['examples'])
        if not loss > _OVERFITTED * self.chance:
          break
    return loss, number


def _gradients(gradients: dict) -> Check:
  leaves = jax.tree_util.tree_leaves_with_path(gradients)
  names = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in leaves
    if not np.any(leaf) or not np.all(np.isfinite(leaf))
  ]
  return Check(
    'gradients',
    f'of {len(leaves)} arrays, none, or not finite: {", ".join(names) or "-"}',
    not names,
    'a layer below dead units learns nothing: raise its init_std or init_bias',
  )


def _dead_channels(made: dict) -> Check:
  shares = {}
  for name, (towers,) in made.items():
    if name.endswith('_output') and not isinstance(towers, dict):
      x = jnp.concatenate(towers, axis=-1)
      dead = ~jnp.any(x.reshape(-1, x.shape[-1]), axis=0)
      shares[name.removesuffix('_output')] = float(dead.mean())
  worst = max(shares, key=shares.get)
  return Check(
    'dead channels',
    f'{shares[worst]:.0%} at most, in {worst}',
    shares[worst] <= _MOST_DEAD,
    f'raise model.{worst}.init_bias, or lower the rate',
  )


def _norms(model: ml_collections.ConfigDict, made: dict) -> Check | None:
  """How much more than zeros the largest input of a norm is divided."""
  norm = model.lrn
  alpha = norm.alpha / (norm.n if norm.alpha_over_n else 1)
  function = functools.partial(
    plain.local_response_norm, n=norm.n, k=norm.k, alpha=alpha, beta=norm.beta
  )
  act = alexnet.ACTIVATIONS[model.activation]
  factors = {}
  for name, row in alexnet.layer_table(model).items():
    if row.after[:2] == ('act', 'lrn'):
      (towers,) = made[name]['__call__']
      if norm.across_towers:
        towers = [jnp.concatenate(towers, axis=-1)]
      x = jnp.stack([act(tower) for tower in towers])
      divisors = jnp.where(x == 0, 0, x / jax.vmap(function)(x))
      factors[name] = float(divisors.max()) / norm.k**norm.beta
  if not factors:
    return None
  worst = max(factors, key=factors.get)
  return Check(
    'response norms',
    f'divide by {factors[worst]:.2f} times k^beta at most, in {worst}',
    factors[worst] <= _MOST_NORM,
    'inputs are large: divide them by data.scale=64, or lower model.lrn.alpha',
  )
