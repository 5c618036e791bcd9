r"""Shows a run on one page: a single HTML file that works offline.

    python -m alexnet_jax.tools.report --workdir=runs/alexnet \
        --output=report.html

The page has errors, learning curves, confusion, kernels, predictions, nearest
training images, top activations of the last convolution, config and
environment. --parts leaves some of them out: nearest images and top activations
run the network on the whole training set, which takes hours for ImageNet on a
CPU.
"""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from alexnet_jax import command_line, errors, parallel, paths, trained
from alexnet_jax.data import pipeline, records
from alexnet_jax.models import alexnet
from alexnet_jax.tools import (
  curves,
  error_table,
  figures,
  kernels,
  nearest,
  predict,
  top_activations,
)
from alexnet_jax.tools import flags as tool_flags
from alexnet_jax.train_step import abstract_train_state

_TEMPLATE = pathlib.Path(__file__).with_suffix('.html')
_FILES = ('config.json', 'environment.json', 'data.json')
_ROWS = 15  # of the tables of classes and of mistakes
# More classes than this give no legible confusion matrix.
_MAX_CLASSES = 40


@dataclasses.dataclass(frozen=True)
class Subject:
  """A run that is reported, evaluated on `config.eval.split`.

  Attributes:
    run: Run on the devices; its `eval.views` are 1 or 10.
    prepared: Data of the run.
    batch_size: Number of images at a time.
    tallies: Tallies by number of views, the most views last.
  """

  run: trained.TrainedRun
  prepared: records.PreparedSet
  batch_size: int
  tallies: dict[int, error_table.Tally]

  @property
  def tally(self) -> error_table.Tally:
    """The tally with the most views."""
    return self.tallies[max(self.tallies)]


class Picture(NamedTuple):
  """A figure as the page holds it.

  Attributes:
    png: PNG file in base64.
    alt: Description for readers who do not see it.
    inches: Width of the figure.
  """

  png: str
  alt: str
  inches: float


class Part(NamedTuple):
  """A section of the page.

  Attributes:
    text: Sentences that explain what is seen.
    pictures: Figures below the text.
    table: Rows of cells below the figures, the head first.
  """

  text: str
  pictures: tuple[Picture, ...] = ()
  table: tuple[tuple[str, ...], ...] = ()


def create(
  run: trained.TrainedRun, *, batch_size: int, parts: Iterable[str]
) -> str:
  """Evaluates a run, draws it, and returns the page.

  Whatever comes from files, such as names of classes, is escaped.

  Args:
    run: Run on the devices. If `eval.views` are 10, errors are given with one
      view as well.
    batch_size: Number of images at a time.
    parts: Names in `PARTS`.

  Raises:
    UserError: If run, data and devices do not fit each other.
  """
  import jinja2

  subject = _measure(run, batch_size)
  paths = [run.workdir / name for name in _FILES]
  environment = jinja2.Environment(autoescape=True)
  return environment.from_string(_TEMPLATE.read_text()).render(
    title=run.workdir.name,
    subtitle=f'{run.workdir}, step {run.step:,}',
    facts=_facts(subject),
    parts=[(name, PARTS[name][0], _draw(name, subject)) for name in parts],
    files={path.name: path.read_text() for path in paths if path.exists()},
  )


def _measure(run: trained.TrainedRun, batch_size: int) -> Subject:
  parallel.check_batch_size(run.plan, batch_size)
  tallies = {}
  for views in sorted({1, run.config.eval.views}):
    config = run.config.copy_and_resolve_references()
    config.eval.views = views
    viewer = dataclasses.replace(run, config=config)
    tallies[views] = error_table.measure({'run': viewer}, batch_size)['run']
  return Subject(run, run.open_data(), batch_size, tallies)


def _facts(subject: Subject) -> dict[str, str]:
  run, prepared = subject.run, subject.prepared
  summary = subject.tally.summary(run.class_names)
  trained_on = pipeline.num_train_examples(prepared, run.config.data)
  params = abstract_train_state(run.config).params
  num_params = sum(x.size for x in jax.tree.leaves(params))
  views = _count_views(max(subject.tallies))
  return {
    f'top-1 error, {views}': _percent(summary['top1_error']),
    f'top-5 error, {views}': _percent(summary['top5_error']),
    'data': prepared.info['source'],
    'classes': f'{len(run.class_names):,}',
    'training images': f'{trained_on:,}',
    f'{run.config.eval.split} images': f'{summary["examples"]:,}',
    'parameters': f'{num_params:,}',
    'steps': f'{run.step:,}',
  }


def _percent(fraction: float) -> str:
  return f'{100 * fraction:.2f} %'


def _count_views(views: int) -> str:
  return 'one view' if views == 1 else f'{views} views'


def _draw(name: str, subject: Subject) -> Part:
  """Returns a part, or the sentence that says why this run has none."""
  try:
    return PARTS[name][1](subject)
  except errors.UserError as error:
    return Part(f'Not drawn: {error}')


def _picture(chart: figures.Figure, alt: str) -> Picture:
  file = io.BytesIO()
  chart.savefig(file, dpi=figures.DPI)
  png = base64.b64encode(file.getvalue()).decode()
  return Picture(png, alt, chart.get_figwidth())


def _draw_curves(subject: Subject) -> Part:
  workdir = subject.run.workdir
  chart = curves.draw({workdir.name: workdir})
  return Part(
    'Dashed: training, means since the row before, on augmented images and '
    'with dropout. Solid: validation. Dotted: drops of the rate.',
    (_picture(chart, 'top-1 error and loss by epoch'),),
  )


def _list_errors(subject: Subject) -> Part:
  run, rows = subject.run, [('', 'top-1 error', 'top-5 error', 'loss')]
  for views, tally in subject.tallies.items():
    summary = tally.summary(run.class_names)
    cells = [_percent(summary[f'top{k}_error']) for k in (1, 5)]
    rows.append((_count_views(views), *cells, f'{summary["loss"]:.4f}'))
  by_class = summary['top1_error_by_class'].values()
  pairs = zip(run.readable_names, by_class, strict=True)
  known = [(name, error) for name, error in pairs if error is not None]
  worst = sorted(known, key=lambda pair: -pair[1])[:_ROWS]
  rows += [(name, _percent(error), '', '') for name, error in worst]
  return Part(
    f'All {summary["examples"]:,} images of {run.config.eval.split}. One view '
    'is the centre patch; of ten, probabilities are averaged (paper, section '
    f'4.1). Below, the classes with the most errors, {_count_views(views)}.',
    table=tuple(rows),
  )


def _draw_confusion(subject: Subject) -> Part:
  confusion, names = subject.tally.confusion, subject.run.readable_names
  pictures, alt = (), 'confusion matrix, percent of each class'
  if len(names) <= _MAX_CLASSES:
    pictures = (_picture(draw_confusion(confusion, names), alt),)
  mistakes = rank_mistakes(confusion, _ROWS)
  if not mistakes:
    return Part('No image was mistaken.', pictures)
  rows = [
    (f'{names[i]} taken for {names[j]}', f'{count:,}', _percent(share))
    for i, j, count, share in mistakes
  ]
  return Part(
    'A row of the picture is a class, and gives in percent what its images '
    'were taken for. The table has the most frequent mistakes.',
    pictures,
    (('mistake', 'images', 'of the class'), *rows),
  )


def rank_mistakes(
  confusion: np.ndarray, count: int
) -> list[tuple[int, int, int, float]]:
  """Returns the most frequent mistakes.

  Args:
    confusion: [classes, classes], how often a label was taken for a class.
    count: Largest number of mistakes.

  Returns:
    Label, the class that it was taken for, number of images, and their share of
    the label's images.
  """
  wrong = confusion - np.diag(confusion.diagonal())
  order = np.argsort(-wrong, axis=None, kind='stable')[:count]
  totals = confusion.sum(axis=1)
  return [
    (int(i), int(j), int(wrong[i, j]), float(wrong[i, j] / totals[i]))
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
    if wrong[i, j]
  ]


def draw_confusion(confusion: np.ndarray, names: list[str]) -> figures.Figure:
  """Draws a row for each class: what its images were taken for, in percent.

  Args:
    confusion: [classes, classes], how often a label was taken for a class.
    names: Names of the classes.
  """
  shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
  side = 1.8 + 0.45 * len(names)
  chart = figures.create(side, side, layout='constrained')
  axis = chart.subplots()
  axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  short = [figures.short(name, 16) for name in names]
  axis.set_xticks(range(len(names)), short, rotation=90)
  axis.set_yticks(range(len(names)), short)
  axis.set(xlabel='taken for', ylabel='class')
  axis.tick_params(length=0)
  axis.spines[:].set_visible(False)
  for (row, column), share in np.ndenumerate(shares):
    if share >= 0.005:  # else it rounds to nothing
      axis.text(
        column,
        row,
        f'{100 * share:.0f}',
        ha='center',
        va='center',
        color='white' if share > 0.6 else 'black',
        fontsize=9,
      )
  return chart


def _draw_kernels(subject: Subject) -> Part:
  return Part(
    'The first layer, as in Figure 3 of the paper: each kernel to its own '
    'scale, grey is zero.',
    (_picture(kernels.draw(subject.run), 'kernels by tower'),),
  )


def _draw_predictions(subject: Subject) -> Part:
  run, pictures = subject.run, []
  for only_wrong in (False, True):
    chosen = predict.choose(
      run,
      subject.prepared,
      seed=int(only_wrong),  # or the same images might come twice
      only_wrong=only_wrong,
      batch_size=subject.batch_size,
    )
    if chosen:
      kind = 'misclassified images' if only_wrong else 'images'
      alt = f'{kind} with their most likely classes'
      pictures.append(_picture(predict.draw(run, chosen), alt))
  wrong = 'Below, some of those that it gets wrong.'
  return Part(
    'Images drawn at random, with the five most likely classes, as in Figure '
    '4. The bar of the true class is orange. '
    f'{wrong if len(pictures) > 1 else "The network gets none wrong."}',
    tuple(pictures),
  )


def _draw_nearest(subject: Subject) -> Part:
  run, prepared = subject.run, subject.prepared
  queries = nearest.choose(run, prepared)
  neighbours, _ = nearest.nearest(
    run, prepared, queries, batch_size=subject.batch_size
  )
  chart = nearest.draw(run, prepared, queries, neighbours)
  return Part(
    f'Left: images of {run.config.eval.split}, drawn at random. Right: the '
    'training images whose last hidden layer is nearest (Euclidean distance, '
    'as in Figure 4). Red: another class.',
    (_picture(chart, 'images and their nearest training images'),),
  )


def _draw_top_activations(subject: Subject) -> Part:
  run, prepared = subject.run, subject.prepared
  table = alexnet.layer_table(run.config.model)
  layers = [name for name, row in table.items() if 'kernel' in row]
  if not layers:
    raise errors.UserError('this network has no convolutions.')
  layer = layers[-1]
  channels = top_activations.choose(run, layer)
  found = top_activations.find(
    run, prepared, layer, channels, batch_size=subject.batch_size
  )
  chart = top_activations.draw(run, prepared, layer, channels, found)
  return Part(
    f'Channels of {layer}, and the training images that activate each most. A '
    'cross marks the place.',
    (_picture(chart, f'images that activate channels of {layer} most'),),
  )


# Name -> title, function that draws the part.
PARTS: dict[str, tuple[str, Callable[[Subject], Part]]] = {
  'curves': ('Learning curves', _draw_curves),
  'errors': ('Errors', _list_errors),
  'confusion': ('Confusion', _draw_confusion),
  'kernels': ('Kernels', _draw_kernels),
  'predictions': ('Predictions', _draw_predictions),
  'nearest': ('Nearest images', _draw_nearest),
  'top_activations': ('Top activations', _draw_top_activations),
}


def define_flags() -> None:
  """Defines the flags of this tool."""
  tool_flags.define_workdir()
  tool_flags.define_views()
  tool_flags.define_data()
  tool_flags.define_output('report.html', 'The page to write.')
  flags.DEFINE_list(
    'parts', list(PARTS), 'Parts to show, beside errors and config.'
  )


def main(_) -> None:
  """Writes the page of the run that the flags name."""
  given = flags.FLAGS
  for name in given.parts:
    if name not in PARTS:
      raise errors.UserError(
        f'--parts={name} does not exist; choose from {", ".join(PARTS)}.'
      )
  run = tool_flags.load_run()
  text = create(run, batch_size=given.batch_size, parts=given.parts)
  output = paths.local('--output', given.output)
  output.parent.mkdir(parents=True, exist_ok=True)
  output.write_text(text)
  print(output)


if __name__ == '__main__':
  command_line.run(main, define_flags)
