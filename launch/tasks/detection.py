"""Boxes in a picture: what ``Detections`` are turned into."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxdefect import data
from jaxdefect.evaluate import average_precision, detection_mistakes
from jaxdefect.explain import detection_figures, detections, plots, sampling_points
from launch.tasks.drawn import Drawn

EVALUATOR = average_precision
HEADLINES = ('map50', 'map', 'recall_at_1_fp')

# Detections below this are written down and not drawn, as in the report.
SHOWN_SCORE = 0.5


def evaluate(predictions: Any, seen: dict, fitted: Any) -> dict[str, Any]:
  """The report of ``evaluate.average_precision``."""
  return average_precision.evaluate(predictions, seen, fitted.classes)


def validate(predictions: Any, seen: dict, classes: tuple[str, ...]) -> dict[str, float]:
  """The mean average precisions, without intervals."""
  figures = average_precision.evaluate(predictions, seen, classes, num_resamples=1)['metrics']
  return {name: figures[name] for name in ('map50', 'map') if name in figures}


def table(run: Any, predictions: Any, seen: dict, source: Any) -> list[dict]:
  """One row per picture: its boxes in pixels of the file, by falling score."""
  rows = []
  for i, place in enumerate(seen['index']):
    keep = np.flatnonzero(predictions.valid[i])
    boxes = predictions.boxes[i] / seen['scale'][i]
    found = [
      {
        'class': run.fitted.classes[int(predictions.labels[i, d])],
        'score': round(float(predictions.scores[i, d]), 6),
        'box': [round(float(edge), 2) for edge in boxes[d]],
      }
      for d in keep
    ]
    rows.append({'image': source.names[place], 'detections': found})
  return rows


def flat(rows: list[dict], classes: tuple[str, ...]) -> list[list]:
  """One line per box; a picture without any has none."""
  del classes
  lines: list[list] = [['image', 'class', 'score', 'x0', 'y0', 'x1', 'y1']]
  for row in rows:
    for one in row['detections']:
      lines.append([row['image'], one['class'], one['score'], *one['box']])
  return lines


def complete(made, fitted, known, predictions, seen, batches, directory, result) -> dict[str, Any]:
  """Adds notes, counts and the size of the network; returns the worst misses and false alarms."""
  del known, directory
  source, split, limit = made.source, made.split, made.config.pictures
  result['parameters'] = sum(leaf.size for leaf in jax.tree.leaves(fitted.params))
  result['notes'] = [str(note) for note in source.notes]
  for part, images, classes in (
    ('training', split.train, made.spec.classes),
    ('test', split.test, fitted.classes),
  ):
    counts = data.count_boxes(source, images, max_boxes=made.config.data.max_boxes, classes=classes)
    result[f'{part}_boxes'] = counts._asdict()
  misses, alarms = detection_mistakes.find(predictions, seen, fitted.classes)
  settings = (predictions, seen, fitted.classes, source.read)
  pictures = {
    'misses': detection_figures.illustrate(
      misses[:limit], *settings, missed=True, names=source.names
    ),
    'false_alarms': detection_figures.illustrate(
      alarms[:limit], *settings, missed=False, names=source.names
    ),
  }
  if made.method.sampling is not None:
    pictures['figures'] = [_sampling_sheet(made, fitted, batches, limit)]
  return pictures


def _sampling_sheet(made, fitted, batches, limit: int) -> tuple[str, Any]:
  """Where the last deformable convolution looks, on one true box of each of some test pictures."""
  layer = made.config.sampling_layer
  pictures, captions, met = [], [], set()
  for batch in batches:
    offsets = np.asarray(made.method.sampling(fitted, batch, layer=layer))
    stride = batch['image'].shape[1] / offsets.shape[1]
    for row in np.flatnonzero(batch['valid']):
      place = int(batch['index'][row])
      for box, label in zip(batch['boxes'][row], batch['box_label'][row]):
        name = fitted.classes[label]
        if name in met or not (box[2:] > box[:2]).all() or len(pictures) == limit:
          continue
        met.add(name)
        cells = sampling_points.cells_in_box(box, offsets.shape[1:3], output_stride=stride, limit=2)
        points = [
          sampling_points.sampling_points(offsets[row], cell, input_stride=stride) for cell in cells
        ]
        scale = batch['scale'][row]
        centers = (np.asarray(cells) * stride + 0.5) / scale
        pictures.append(
          sampling_points.draw(
            made.source.read(place), centers, np.stack(points) / scale, box=box / scale
          )
        )
        lengths = sampling_points.offset_lengths(offsets[row], input_stride=stride / scale)
        captions.append(f'{name}\n{made.source.names[place]}\nmean offset {lengths["mean"]:.1f} px')
    if len(met) == min(limit, len(fitted.classes)):
      break
  sheet = plots.contact_sheet(pictures, captions, columns=3, width=3.2)
  return f'Where {layer} looks on true boxes (crosses: cells, discs: its samples)', sheet


def warnings(result: dict[str, Any]) -> list[str]:
  """Few test boxes, boxes beyond the cap, what was wrong with the annotations."""
  found = []
  few = [name for name, count in result['support'].items() if 0 < count < 20]
  if few:
    found.append(f'Fewer than 20 test boxes of {", ".join(few)}: read their intervals.')
  for part in ('training', 'test'):
    cut = result[f'{part}_boxes']['over_cap']
    if cut:
      found.append(f'{cut} {part} boxes are beyond data.max_boxes and were left out.')
  return found + result['notes']


def overlay(run: Any, picture: np.ndarray, predictions: Any, row: dict) -> np.ndarray:
  """The boxes of a row in its picture."""
  del predictions
  shown = [one for one in row['detections'] if one['score'] >= SHOWN_SCORE]
  return detections.draw(
    picture,
    np.array([one['box'] for one in shown]).reshape(-1, 4),
    np.array([run.fitted.classes.index(one['class']) for one in shown], int),
    np.array([one['score'] for one in shown]),
    run.fitted.classes,
  )


def draw(run: Any, source: Any, batches: Any, rows: list[dict]) -> Iterator[Drawn]:
  """The boxes that were found, in each picture."""
  del batches
  place = {name: i for i, name in enumerate(source.names)}
  for row in rows:
    at = place[row['image']]
    yield Drawn(at, overlay(run, source.read(at), None, row))


def legend(run: Any) -> None:
  """None: each box is drawn with its name."""
  del run
