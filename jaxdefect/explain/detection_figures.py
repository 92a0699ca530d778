"""Figures of a detector: precision against recall, and its worst mistakes as pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, MultipleLocator

from jaxdefect.contracts import Detections
from jaxdefect.evaluate import coco_matches
from jaxdefect.evaluate.detection_mistakes import BoxMistake
from jaxdefect.explain import detections, figures, plots

_MISSED = {
  'nothing': 'nothing was found there',
  'low score': 'found with a score of {score:.2f} only',
  'wrong class': 'taken for {other}',
  'poor overlap': 'what was found overlaps it too little',
}
_ALARM = {
  'background': 'nothing is marked there',
  'duplicate': 'this box was found already',
  'wrong class': 'marked as {other}',
  'poor overlap': 'overlaps the marked box too little',
}


@dataclass(frozen=True, eq=False)
class DrawnMistake:
  """A miss or a false alarm, ready to print.

  Attributes:
    image: [h,w,3] uint8, the surroundings of the box with everything drawn in.
    title: the class of a miss; the class and score of a false alarm.
    reason: why it is a mistake, in a few words.
    min_score: the working threshold; weaker detections are not drawn.
    name: where the picture comes from, for example its path in the data set.
  """

  image: np.ndarray
  title: str
  reason: str
  min_score: float
  name: str = ''


def illustrate(
  rows: Sequence[BoxMistake],
  predictions: Detections,
  truth: Mapping[str, np.ndarray],
  classes: Sequence[str],
  read: Callable[[int], np.ndarray],
  *,
  missed: bool,
  names: Sequence[str] | None = None,
  min_score: float = 0.5,
) -> list[DrawnMistake]:
  """Draws misses or false alarms into the pictures as they were read.

  Args:
    rows: from ``evaluate.detection_mistakes.find``, as many as are wanted.
    predictions: the detections that were searched.
    truth: the truth that was searched, with ``index`` [N].
    classes: K names.
    read: ``Source.read``, index -> picture.
    missed: whether ``rows`` are misses; otherwise false alarms.
    names: ``Source.names``, the name of each picture by its index.
    min_score: as for ``find``; weaker detections are not drawn.

  Returns:
    One ``DrawnMistake`` per row, in the order of ``rows``.
  """
  boxes = coco_matches.in_original_pixels(predictions, truth, classes)
  drawn = []
  for one in rows:
    image = read(int(truth['index'][one.row]))
    kept = boxes.kept[one.row] & (boxes.score[one.row] >= min_score)
    found, true = boxes.found[one.row][kept], boxes.true[one.row][boxes.true_kept[one.row]]
    side = true if missed else found
    place = int(np.abs(side - np.asarray(one.box)).sum(axis=1).argmin())
    picture = detections.draw(
      image,
      found,
      boxes.label[one.row][kept],
      boxes.score[one.row][kept],
      classes,
      truth=(true, boxes.true_label[one.row][boxes.true_kept[one.row]]),
      highlight=('truth' if missed else 'detection', place),
      window=detections.window_around(one.box, (image.shape[0], image.shape[1])),
    )
    name, other = classes[one.label], classes[one.other] if one.other >= 0 else ''
    reason = (_MISSED if missed else _ALARM)[one.kind].format(score=one.score, other=other)
    title = name if missed else f'{name} {one.score:.2f}'
    origin = names[int(truth['index'][one.row])] if names is not None else ''
    drawn.append(DrawnMistake(picture, title, reason, min_score, origin))
  return drawn


def mistake_sheet(drawn: Sequence[DrawnMistake], *, title: str = '', columns: int = 3) -> Figure:
  """The mistakes side by side, each with what went wrong.

  Args:
    drawn: from ``illustrate``.
    title: of the figure, for example ``'Worst misses'``.
    columns: pictures per row.

  Returns:
    The figure.
  """
  captions = [f'{one.title}: {one.reason}' + f'\n{one.name}' * bool(one.name) for one in drawn]
  pictures = [one.image for one in drawn]
  return plots.contact_sheet(pictures, captions, columns=columns, title=title, width=3.2)


def precision_recall(
  curves: Mapping[str, Any],
  metrics: Mapping[str, float],
  *,
  title: str = 'Precision against recall',
) -> Figure:
  """One curve per class at IoU 0.5, up to the largest recall that the class reaches.

  Up to ten classes share a panel, with their average precision in the legend; of more, all are
  drawn in gray and the three best and three worst in colour.

  Args:
    curves: ``precision_recall`` of a report: ``recall`` [101] and ``precision`` name -> [101].
    metrics: of the report; ``ap50/<class>`` orders the legend.
    title: of the figure.

  Returns:
    The figure.
  """
  figure, (axes,) = figures.panels((6.6, 4.2), title=title)
  recall = 100 * np.asarray(curves['recall'], float)
  order = sorted(curves['precision'], key=lambda name: -metrics.get(f'ap50/{name}', 0.0))
  many = len(order) > 10
  named = order if not many else order[:3] + order[-3:]
  for name in order:
    precision = 100 * np.asarray(curves['precision'][name], float)
    reached = int((precision > 0).sum())
    place = named.index(name) if name in named else None
    style: dict[str, Any] = {'color': '#bdbdbd', 'linewidth': 1.0, 'zorder': 2}
    if place is not None:
      label = f'{name}  {100 * metrics[f"ap50/{name}"]:.1f}' if f'ap50/{name}' in metrics else name
      style = {
        'color': figures.SERIES[place % len(figures.SERIES)],
        'linestyle': '-' if place < len(figures.SERIES) else '--',
        'linewidth': 1.7,
        'zorder': 3,
        'marker': figures.MARKERS[place % len(figures.MARKERS)],
        'markevery': [reached - 1] if reached else [],
        'markersize': 5,
        'label': figures.label(label),
      }
    axes.plot(recall[:reached], precision[:reached], clip_on=False, **style)
  figures.style(axes, x='recall (%)', y='precision (%)')
  axes.set_xlim(0, 100)
  axes.set_ylim(0, 102)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(MultipleLocator(20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  if named:
    legend = figure.legend(
      loc='outside right upper',
      frameon=False,
      fontsize=8.5,
      labelcolor=figures.INK,
      alignment='left',
    )
    heading = 'AP@0.5 (%)' + ', best and worst' * many
    legend.set_title(heading, prop=FontProperties(size=8.5))
    legend.get_title().set_color(figures.QUIET)
    figures.plain_text(legend)
  return figure
