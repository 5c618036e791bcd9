"""Large batches: LARS, batch norm in towers, a batch in parts."""

import functools
import types

import jax
import numpy as np
import optax
import pytest

from alexnet_jax import errors, optim, parallel, train, train_step
from alexnet_jax.workdir import files, metrics_file
from experiments import large_batch
from experiments.sweeps import experiment, program, runner
from tests import in_memory, runs, tiny


@pytest.fixture
def quick(monkeypatch):
  """Small programs that run a few times: compiled in a hurry."""
  options = {'xla_backend_optimization_level': 0}
  monkeypatch.setattr(parallel, 'compiler_options', lambda _: options)


ETA, BETA, RATE = 0.02, 0.3, 0.5


def lars_path(weight, gradients, rate, decay):
  """LARS's Algorithm 1 for one array, as NVCaffe has it, in float64."""
  velocity = np.zeros_like(weight)
  for gradient in gradients:
    w, g = np.linalg.norm(weight), np.linalg.norm(gradient)
    ratio = ETA * w / (g + BETA * w) if w > 0 and g > 0 else 1.0
    if rate > 0:
      velocity = 0.9 * velocity - rate * ratio * (gradient + decay * weight)
      weight = weight + velocity
  return weight


def draw(rng):
  """Arrays of two towers and of a head that both towers share."""
  return {
    'conv': {
      'kernel': rng.standard_normal((2, 3, 4)),
      'bias': np.zeros((2, 4)),
    },
    'held': {'kernel': rng.standard_normal((2, 5))},
    'head': {'kernel': rng.standard_normal((6, 3)), 'bias': np.ones(3)},
  }


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_lars_is_the_published_rule_for_a_layer_on_any_devices(devices):
  rng = np.random.default_rng(0)
  params, gradients = draw(rng), [draw(rng) for _ in range(4)]
  gradients[2]['head']['bias'][:] = 0.0
  gradients[3]['conv']['bias'][:] = rng.standard_normal((2, 4))
  both = {'kernel': True, 'bias': True}
  neither = {'kernel': False, 'bias': False}
  by_tower = {'conv': both, 'held': {'kernel': True}, 'head': neither}
  rates = jax.tree.map(lambda _: RATE, params)
  rates['held']['kernel'] = 0.0
  decays = jax.tree.map(lambda _: BETA, params)
  decays['conv']['bias'] = 0.0  # the ratio has the network's all the same
  rule, plan = optim.update_rule(0.9, decays), parallel.make_plan(2, devices)

  def step(state, gradient):
    params, opt_state = state
    squares = [plan.squared_norms(x, by_tower) for x in (params, gradient)]
    lars = optim.lars_rates(rates, *squares, eta=ETA, decay=BETA)
    updates, opt_state = rule.update(gradient, opt_state, params, rates=lars)
    return optax.apply_updates(params, updates), opt_state

  program = plan.compile(step, deterministic=False, donate=False)
  float32 = functools.partial(jax.tree.map, np.float32)
  start = float32(params), rule.init(float32(params))
  flags = (
    by_tower,
    optax.tree_map_params(rule, lambda _, flag: flag, start[1], by_tower),
  )
  state = plan.put_state(start, flags)
  for gradient in gradients:
    state = program(state, plan.put_state(float32(gradient), by_tower))
  actual, _ = plan.get_state(state, flags)
  for path, weight in jax.tree_util.tree_leaves_with_path(params):
    find = functools.partial(functools.reduce, lambda x, k: x[k.key], path)
    own = [find(gradient) for gradient in gradients]
    expected = lars_path(weight, own, find(rates), find(decays))
    np.testing.assert_allclose(find(actual), expected, rtol=1e-5, atol=1e-6)


def config_of(**fields):
  """Three of the eight layers in two towers, in steps of 16 examples."""
  config = tiny.get_config('')
  config.model.omit = 'conv2,conv3,conv4,fc7,lrn,max_pool'
  config.update_from_flattened_dict(fields)
  return config


def test_lars_and_moments_of_towers_are_the_same_on_any_devices(quick):
  norm = ('act', 'batch_norm')
  config = config_of(**{'model.conv1.after': norm, 'model.conv5.after': norm})
  config.optimizer.update({'lars_eta': 0.01, 'weight_decay': 0.0})
  config.optimizer.learning_rate = 3.0
  start = train_step.create_train_state(config)
  variables = []
  for config.num_devices in (1, 2, 4):
    training = in_memory.Training(config, start)
    training.losses(1)
    # Without decay, the first step is as long as rate * eta * |w|.
    first = training.canonical().params
    for old, new in zip(
      *map(jax.tree.leaves, (start.params, first)), strict=True
    ):
      length = np.linalg.norm(old - new)
      if old.any() and (old != new).any():
        assert length == pytest.approx(0.03 * np.linalg.norm(old), rel=1e-4)
    training.losses(2)
    variables.append(jax.tree.leaves(training.canonical().variables))
  shapes = {x.shape for x in jax.tree.leaves(training.canonical().batch_stats)}
  assert shapes == {(2, 4), (2, 6)}
  for other in variables[1:]:
    for a, b in zip(variables[0], other, strict=True):
      assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def test_a_batch_in_parts_is_the_whole_batch_on_any_devices(quick):
  config = config_of(batch_size=32)
  results = []
  for config.num_devices, config.accumulate_steps in ((1, 1), (1, 8), (4, 8)):
    training = in_memory.Training(config)
    training.losses(2)
    results.append(training.canonical())
  one, *others = map(jax.tree.leaves, results)
  assert results[1].metric_sums['examples'] == 64
  for other in others:
    for a, b in zip(one, other, strict=True):
      assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_moments_are_those_of_a_part_on_any_devices(quick):
  config = config_of(batch_size=8, accumulate_steps=2)
  config.model.conv1.after = ('batch_norm',)
  config.data.color_noise = 'none'
  start = train_step.create_train_state(config)
  images = in_memory.preprocessing_of(config)(
    in_memory.batch_of(config, 0)['image']
  )
  _, outputs = train_step.create_model(config).apply(
    start.variables, images, capture_intermediates=True, mutable='intermediates'
  )
  maps = np.stack(outputs['intermediates']['conv1']['__call__'][0])
  # Examples 0, 2, 4, 6 and then 1, 3, 5, 7; maps are [T, N, H, W, C].
  first, second = (maps[:, part::2].mean((1, 2, 3)) for part in (0, 1))
  for config.num_devices in (1, 4):
    training = in_memory.Training(config, start)
    training.losses(1)
    stats = training.canonical().batch_stats['conv1_batch_norm']
    expected = 0.9 * (0.1 * first) + 0.1 * second
    np.testing.assert_allclose(stats['mean'], expected, rtol=1e-4, atol=1e-7)


def test_parts_are_in_memory_one_at_a_time():
  config = config_of(batch_size=64)
  state = train_step.abstract_train_state(config)
  options, sizes = parallel.compiler_options(False), []
  for config.accumulate_steps in (1, 4):
    arguments = (state, in_memory.batch_of(config, 0), np.float32(1))
    program = jax.jit(in_memory.run_of(config).train_program).lower(*arguments)
    memory = program.compile(compiler_options=options).memory_analysis()
    sizes.append(memory.temp_size_in_bytes)
  assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize('devices, batch, parts', [(4, 48, 8), (1, 12, 8)])
def test_parts_that_do_not_fit_are_refused(devices, batch, parts):
  plan = parallel.make_plan(1, devices)
  parallel.check_batch_size(plan, 32, parts)
  with pytest.raises(errors.UserError, match=f'={batch} .*accumulate_steps=8'):
    parallel.check_batch_size(plan, batch, parts)


@pytest.mark.parametrize(
  'batch, epochs, warned', [(16384, 0, 1), (16384, 5, 0), (8192, 0, 0)]
)
def test_a_large_batch_without_warm_up_is_warned_of(
  capsys, batch, epochs, warned
):
  config = config_of(batch_size=batch)
  config.schedule.warmup_epochs = float(epochs)
  train._warn_without_warm_up(config)
  assert capsys.readouterr().out.count('schedule.warmup_epochs=0') == warned


def test_methods_differ_in_batch_and_rule_alone(tmp_path, monkeypatch):
  one_rate = large_batch._with_rates(dict.fromkeys(large_batch.METHODS, [0.02]))
  planned = experiment.plan(one_rate, tmp_path, seeds=[1])
  configs = [runs.config_of(run, monkeypatch) for run in planned]
  sizes = [(c.batch_size, c.optimizer.lars_eta) for c in configs]
  assert sizes == [(128, 0.0), (4096, 0.0), (4096, 1.0)]
  for config in configs:
    assert (config.schedule.name, config.schedule.warmup_epochs) == ('poly', 1)
    config.batch_size, config.optimizer.lars_eta = 0, 0.0
  assert configs[0] == configs[1] == configs[2]


def _execute(planned):
  """Trainings that end with a formula of the rate; one explodes."""
  best = {'SGD 128': 0.02, 'SGD 4096': 0.2, 'LARS 4096': 0.1}
  for run in planned:
    method, _, rate = run.variant.removeprefix('tuning ').partition(' at ')
    result = {'variant': run.variant, 'seed': run.seed, 'status': 'failed'}
    if (method, rate) == ('SGD 4096', '0.2'):
      yield result | {'reason': 'loss of step 3 were not finite'}
      continue
    row = {'step': 1, 'epoch': 1.0, 'loss': 1.0, 'top5_error': 0, 'examples': 1}
    row['top1_error'] = abs(float(rate) - best[method]) + run.seed / 100
    rows = [row | {'split': split} for split in ('train', 'validation')]
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / 'metrics.jsonl').write_text(metrics_file.dump(rows))
    (run.workdir / runner.FINISHED).touch()
    yield result | {'status': 'finished'}


def test_each_method_is_compared_at_its_best_rate(tmp_path, monkeypatch):
  given = {'workdir': str(tmp_path), 'results': None, 'data': ''}
  given = types.SimpleNamespace(**given, seeds=[], set=[], gpus=[])
  for module in (program, large_batch):
    monkeypatch.setattr(module, '_FLAGS', given)
  monkeypatch.setattr(program, 'execute_all', _execute)
  with pytest.raises(SystemExit) as caught:
    large_batch.main([])
  assert not caught.value.code
  table = (tmp_path / 'results.md').read_text()
  rows = [line for line in table.splitlines() if ' at 0.' in line]
  assert rows[0].startswith('| SGD 128 at 0.02 | 0.02 | 0.01 | 0.02 | 3 |')
  assert rows[1].startswith('| SGD 4096 at 0.1 | 0.12 | 0.01 | 0.12 | 3 | +0.1')
  assert rows[2].startswith(
    '| LARS 4096 at 0.1 | 0.02 | 0.01 | 0.02 | 3 | +0.0'
  )
  assert len(rows) == 3 + 3 * len(large_batch.RATES) - 1
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_an_evaluation_has_the_batch_that_is_given(tmp_path):
  config = config_of(batch_size=8, accumulate_steps=2)
  (tmp_path / 'config.json').write_text(config.to_json())
  evaluated = files.evaluation_config(tmp_path, {'batch_size': 4})
  assert (evaluated.batch_size, evaluated.accumulate_steps) == (4, 1)
  assert files.evaluation_config(tmp_path, {}).accumulate_steps == 2
