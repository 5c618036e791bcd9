"""A single HTML file about a run, which asks nothing of the network."""

import pathlib
from collections.abc import Iterable

import jax
import jinja2

from alexnet_jax import parallel, trained
from alexnet_jax.data import pipeline
from alexnet_jax.report import parts
from alexnet_jax.train_state import abstract_train_state

_TEMPLATE = pathlib.Path(__file__).with_name('page.html')
_FILES = ('config.json', 'environment.json', 'data.json')


def create(
  name: str,
  overrides: dict[str, object],
  *,
  batch_size: int,
  wanted: Iterable[str],
) -> str:
  """Evaluates a run and draws it.

  Args:
    name: WORKDIR or WORKDIR@STEP.
    overrides: fields of its config, see `workdir.evaluation_config`; where
      `eval.views` are 10, errors are given with one view as well.
    batch_size: images at a time.
    wanted: which of `parts.PARTS`.

  Returns:
    The page. Whatever comes from files, class names among them, is escaped.

  Raises:
    UserError: where run, data and devices do not fit each other.
  """
  run = trained.load(name, overrides)
  parallel.check_batch_size(run.plan, batch_size)
  subject = parts.measure(run, batch_size)
  environment = jinja2.Environment(autoescape=True)
  return environment.from_string(_TEMPLATE.read_text()).render(
    title=run.workdir.name,
    subtitle=f'{run.workdir}, step {run.step:,}',
    facts=_facts(subject),
    parts=[parts.make(part, subject) for part in wanted],
    files=_files(run.workdir),
  )


def _facts(subject: parts.Subject) -> dict[str, str]:
  run, prepared = subject.run, subject.prepared
  views, split = max(subject.tallies), run.config.eval.split
  summary = subject.tally.summary(run.class_names)
  params = abstract_train_state(run.config).params
  trained_on = pipeline.num_train_examples(prepared, run.config.data)
  of = 'one view' if views == 1 else f'{views} views'
  return {
    f'top-1 error, {of}': parts.percent(summary['top1_error']),
    f'top-5 error, {of}': parts.percent(summary['top5_error']),
    'data': prepared.info['source'],
    'classes': f'{len(run.class_names):,}',
    'training images': f'{trained_on:,}',
    f'{split} images': f'{summary["examples"]:,}',
    'parameters': f'{sum(x.size for x in jax.tree.leaves(params)):,}',
    'steps': f'{run.step:,}',
  }


def _files(workdir: pathlib.Path) -> dict[str, str]:
  paths = [workdir / name for name in _FILES]
  return {path.name: path.read_text() for path in paths if path.exists()}
