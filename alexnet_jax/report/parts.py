"""The parts of a report: headings, sentences, figures and tables."""

import base64
import dataclasses
import io
from collections.abc import Callable

from matplotlib import figure

from alexnet_jax import errors, trained
from alexnet_jax.analysis import error_table, exciting, retrieval
from alexnet_jax.data import records
from alexnet_jax.figures import (
  confusion,
  curves,
  kernels,
  neighbours,
  picture,
  predictions,
)
from alexnet_jax.figures import exciting as exciting_figure
from alexnet_jax.models import alexnet

_MISTAKES = 15  # rows of their table
# CSS pixels to an inch of a figure: where there is room, and at least, when
# letters of nine points are seven pixels high.
_FULL, _LEAST = 90, 56


@dataclasses.dataclass(frozen=True)
class Subject:
  """What a report is about.

  Attributes:
    run: the network; its config's `eval.views` are 1, or 10.
    prepared: its data.
    batch_size: images at a time.
    tallies: of `config.eval.split`, by number of views.
  """

  run: trained.Trained
  prepared: records.PreparedSet
  batch_size: int
  tallies: dict[int, error_table.Tally]

  @property
  def tally(self) -> error_table.Tally:
    """With the most views."""
    return self.tallies[max(self.tallies)]


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure as a page holds it.

  Attributes:
    png: in base64.
    alt: what it shows, for those who do not see it.
    full: its width where there is room, in CSS pixels.
    least: the width that leaves it legible, likewise.
  """

  png: str
  alt: str
  full: int
  least: int


@dataclasses.dataclass(frozen=True)
class Part:
  """A section of the page.

  Attributes:
    name: the anchor.
    title: the heading.
    text: what one sees.
    pictures: figures.
    table: rows of cells, the head first.
  """

  name: str
  title: str
  text: str
  pictures: tuple[Picture, ...] = ()
  table: tuple[tuple[str, ...], ...] = ()


def measure(run: trained.Trained, batch_size: int) -> Subject:
  """Evaluates a run with one view, and with ten where its config says so.

  Raises:
    UserError: where its data are missing.
  """
  prepared = run.open_data()

  def tally(count: int) -> error_table.Tally:
    config = run.config.copy_and_resolve_references()
    config.eval.views = count
    viewer = dataclasses.replace(run, config=config)
    measured = error_table.measure([('run', viewer, prepared)], batch_size)
    return measured['run']

  tallies = {
    count: tally(count) for count in sorted({1, run.config.eval.views})
  }
  return Subject(run, prepared, batch_size, tallies)


def make(name: str, subject: Subject) -> Part:
  """One of `PARTS`; where this run has none, the sentence that says why."""
  title, create = PARTS[name]
  try:
    return create(Part(name, title, ''), subject)
  except errors.UserError as error:
    return Part(name, title, f'Not drawn: {error}')


def percent(fraction: float) -> str:
  """An error to two decimals."""
  return f'{100 * fraction:.2f} %'


def _picture(chart: figure.Figure, alt: str) -> Picture:
  buffer = io.BytesIO()
  chart.savefig(buffer, dpi=picture.DPI)
  full, least = (round(n * chart.get_figwidth()) for n in (_FULL, _LEAST))
  return Picture(base64.b64encode(buffer.getvalue()).decode(), alt, full, least)


def _curves(part: Part, subject: Subject) -> Part:
  workdir = subject.run.workdir
  chart = curves.draw({workdir.name: workdir})
  return dataclasses.replace(
    part,
    text='Dashed: training, means since the row before, on augmented images '
    'and with dropout. Solid: validation. Dotted: drops of the rate.',
    pictures=(_picture(chart, 'top-1 error and loss by epoch'),),
  )


def _errors(part: Part, subject: Subject) -> Part:
  head = ('', 'top-1 error', 'top-5 error', 'loss')
  run, rows = subject.run, []
  for views, tally in subject.tallies.items():
    summary = tally.summary(run.class_names)
    top1, top5 = percent(summary['top1_error']), percent(summary['top5_error'])
    name = 'one view' if views == 1 else f'{views} views'
    rows.append((name, top1, top5, f'{summary["loss"]:.4f}'))
  by_class = subject.tally.summary(run.class_names)['top1_error_by_class']
  pairs = zip(run.readable_names, by_class.values(), strict=True)
  known = [(name, error) for name, error in pairs if error is not None]
  worst = sorted(known, key=lambda pair: -pair[1])[:_MISTAKES]
  rows += [(name, percent(error), '', '') for name, error in worst]
  count = subject.prepared.num_examples(run.config.eval.split)
  return dataclasses.replace(
    part,
    text=f'All {count:,} images of {run.config.eval.split}. One view is the '
    'centre patch; of ten, probabilities are averaged (paper, section 4.1). '
    'Below, the classes with the most errors.',
    table=(head, *rows),
  )


def _confusion(part: Part, subject: Subject) -> Part:
  counts = subject.tally.confusion
  names = subject.run.readable_names
  head = ('mistake', 'images', 'of the class')
  mistakes = confusion.mistakes(counts, _MISTAKES)
  rows = [
    (
      f'{names[m.label]} taken for {names[m.taken_for]}',
      f'{m.count:,}',
      percent(m.share),
    )
    for m in mistakes
  ]
  pictures = ()
  if len(names) <= confusion.MAX_CLASSES:
    alt = 'confusion matrix, percent of each class'
    pictures = (_picture(confusion.draw(counts, names), alt),)
  return dataclasses.replace(
    part,
    text='A row of the picture is a class, and says in percent what its images '
    'were taken for. The table has the most frequent mistakes.'
    if rows
    else 'No image was mistaken.',
    pictures=pictures,
    table=(head, *rows) if rows else (),
  )


def _kernels(part: Part, subject: Subject) -> Part:
  return dataclasses.replace(
    part,
    text='The first layer, as in Figure 3 of the paper: each kernel to its own '
    'scale, grey is zero.',
    pictures=(_picture(kernels.draw(subject.run), 'kernels by tower'),),
  )


def _predictions(part: Part, subject: Subject) -> Part:
  def choose(only_wrong: bool) -> list[predictions.Example]:
    return predictions.choose(
      subject.run,
      subject.prepared,
      seed=int(only_wrong),  # or the same images might come twice
      only_wrong=only_wrong,
      batch_size=subject.batch_size,
    )

  def draw(chosen: list[predictions.Example], alt: str) -> Picture:
    return _picture(predictions.draw(subject.run, chosen), alt)

  text = 'Images with the five most likely classes, as in Figure 4: eight '
  pictures = [draw(choose(False), 'images with their most likely classes')]
  if wrong := choose(True):
    pictures.append(draw(wrong, 'misclassified images'))
    text += 'drawn at random, then some of those that the network gets wrong.'
  else:
    text += 'drawn at random. The network gets none wrong.'
  text += ' The bar of the true class is orange.'
  return dataclasses.replace(part, text=text, pictures=tuple(pictures))


def _nearest(part: Part, subject: Subject) -> Part:
  run, prepared = subject.run, subject.prepared
  queries = neighbours.choose(run, prepared)
  found = retrieval.nearest(
    run, prepared, queries.images, batch_size=subject.batch_size
  )
  chart = neighbours.draw(run, prepared, queries, found)
  return dataclasses.replace(
    part,
    text=f'Left: images of {run.config.eval.split}, drawn at random. Right: '
    'the training images whose last hidden layer is nearest (Euclidean '
    'distance, as in Figure 4). Red: another class.',
    pictures=(_picture(chart, 'images and their nearest training images'),),
  )


def _exciting(part: Part, subject: Subject) -> Part:
  run, prepared = subject.run, subject.prepared
  table = alexnet.layer_table(run.config.model)
  layers = [name for name, row in table.items() if 'kernel' in row]
  if not layers:
    raise errors.UserError('this network has no maps.')
  layer = layers[-1]
  found = exciting.find(
    run,
    prepared,
    layer,
    exciting_figure.choose(run, layer),
    batch_size=subject.batch_size,
  )
  crops = exciting.crops(run, prepared, layer, found)
  chart = exciting_figure.draw(run, layer, found, crops)
  return dataclasses.replace(
    part,
    text=f'Maps of {layer}, and the places of training images that excite '
    'each most, cut out as far as the map sees.',
    pictures=(_picture(chart, f'crops that excite maps of {layer} most'),),
  )


PARTS: dict[str, tuple[str, Callable[[Part, Subject], Part]]] = {
  'curves': ('Learning curves', _curves),
  'errors': ('Errors', _errors),
  'confusion': ('Confusion', _confusion),
  'kernels': ('Kernels', _kernels),
  'predictions': ('Predictions', _predictions),
  'nearest': ('Nearest images', _nearest),
  'exciting': ('What excites it', _exciting),
}
