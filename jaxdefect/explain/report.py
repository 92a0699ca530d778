"""``report.json`` for programs and ``report.html`` for people, from the same dict.

The dict is that of ``evaluate.classification.evaluate``, ``evaluate.average_precision.evaluate`` or
``evaluate.anomaly.evaluate`` (or their ``aggregate``) or of ``evaluate.cross_validation.evaluate``,
to which the launcher adds what it knows.
Every part may be missing; what is missing is not shown.

================ ===============================================================================
key              meaning
================ ===============================================================================
``metrics``      name -> float; with ``intervals``, ``interval_kinds``, ``confidence``, ``n``,
                 ``sd``, ``n_seeds``, ``support``, ``classes``, ``absent_classes``, and
                 ``confusion_matrix`` or ``precision_recall``
``floor``        the same dict for the pixel-linear probe, plus ``name``
``split``        ``Split.report``: ``kind``, ``seed``, ``counts`` (part -> class -> images),
                 ``near_duplicates`` (groups of names), ``left_out`` (names), and its arguments
``localisation`` the dict of ``evaluate.localisation.evaluate``
``pixels``       the dict of ``evaluate.region_overlap.evaluate``
``threshold``    of an anomaly method, with ``nominal_false_alarm_rate``, ``kinds`` (kind of defect
                 -> images), ``fit_seconds``, ``ms_per_image``, ``model_bytes``, ``peak_bytes``
``schemes``      of a cross-validation, with ``stability``, ``models``, ``pairs``, ``groups``,
                 ``positive``, ``fixed_model_intervals``, and ``hold_out`` (``n``, ``positives``)
``verdicts``     of a rule, class -> verdict -> images; with ``rules``, ``confirmed``,
                 ``min_confirmed``
``config``       nested dict of the run's settings
``versions``     name -> version
``warnings``     sentences that the reader must see
others           plain values are listed under 'Run'; nested ones stay in ``report.json``
================ ===============================================================================
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxdefect.explain import (
  anomaly_sections,
  detection_sections,
  evidence_sections,
  page,
  sections,
  verdict_sections,
)
from jaxdefect.explain.anomaly_sections import Gallery
from jaxdefect.explain.detection_figures import DrawnMistake
from jaxdefect.explain.mistakes import Mistake
from jaxdefect.explain.page import tag

_MISSES = 'True boxes that were not found, the least noticed first and among equals the largest.'
_FALSE_ALARMS = 'Detections that match no true box of their class, the most confident first.'


def write_report(
  directory: str | os.PathLike[str],
  report: Mapping[str, Any],
  *,
  title: str,
  records: Sequence[Mapping[str, Any]] = (),
  figures: Sequence[tuple[str, Figure]] = (),
  mistakes: Sequence[Mistake] = (),
  ceiling: float | None = None,
  misses: Sequence[DrawnMistake] = (),
  false_alarms: Sequence[DrawnMistake] = (),
  galleries: Sequence[Gallery] = (),
  map_scale: tuple[float, float] | None = None,
) -> pathlib.Path:
  """Writes ``report.html``, then ``report.json``; each appears whole or not at all.

  Args:
    directory: folder of the run; made where it is missing.
    report: the dict above. NaN and infinity are written as null.
    title: heading, for example ``'contrastive_margin on neu'``.
    records: lines of ``metrics.jsonl``, for the learning curves.
    figures: further (caption, figure) pairs.
    mistakes: the worst ones first.
    ceiling: colour scale of the mistakes' overlays.
    misses: of a detector, the worst ones first.
    false_alarms: of a detector, the worst ones first.
    galleries: of an anomaly method, pictures with their maps.
    map_scale: (floor, ceiling) of those maps' colours.

  Returns:
    Path of ``report.html``.

  Raises:
    ValueError: if the report has no ``metrics``.
  """
  directory = pathlib.Path(directory)
  text = html(
    report,
    title=title,
    records=records,
    figures=figures,
    mistakes=mistakes,
    ceiling=ceiling,
    misses=misses,
    false_alarms=false_alarms,
    galleries=galleries,
    map_scale=map_scale,
  )
  directory.mkdir(parents=True, exist_ok=True)
  _replace(directory / 'report.html', text)
  write_json(directory / 'report.json', report)
  return directory / 'report.html'


def write_json(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
  """Writes a report as JSON, whole or not at all.

  Args:
    path: the file.
    report: anything that ``plain`` takes, with ``metrics``.

  Raises:
    ValueError: if the report has no ``metrics``.
  """
  _check(report)
  _replace(pathlib.Path(path), json.dumps(plain(report), indent=1, ensure_ascii=False) + '\n')


def plain(value: Any) -> Any:
  """Brings numpy values, tuples and paths into what JSON knows.

  >>> plain({'a': np.float32(0.5), 'b': (1, float('nan'))})
  {'a': 0.5, 'b': [1, None]}
  """
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return plain(value.tolist())
  if isinstance(value, list | tuple | set | frozenset):
    return [plain(item) for item in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, str | bool | int):
    return value
  return str(value)


def html(
  report: Mapping[str, Any],
  *,
  title: str,
  records: Sequence[Mapping[str, Any]] = (),
  figures: Sequence[tuple[str, Figure]] = (),
  mistakes: Sequence[Mistake] = (),
  ceiling: float | None = None,
  misses: Sequence[DrawnMistake] = (),
  false_alarms: Sequence[DrawnMistake] = (),
  galleries: Sequence[Gallery] = (),
  map_scale: tuple[float, float] | None = None,
) -> str:
  """The page as text: no script, no external file; arguments as in ``write_report``."""
  _check(report)
  values = _known(plain(report))
  body = [
    tag('h1', title),
    sections.subtitle(values),
    sections.warnings(values),
  ]
  if detection_sections.applies(values):
    body += [
      detection_sections.headline(values),
      detection_sections.per_class(values),
      detection_sections.precision_recall(values),
    ]
  elif verdict_sections.applies(values):
    body += [
      verdict_sections.headline(values),
      verdict_sections.tables(values),
    ]
  elif anomaly_sections.applies(values):
    body += [
      anomaly_sections.headline(values),
      anomaly_sections.at_the_threshold(values),
      anomaly_sections.pixels(values.get('pixels')),
      anomaly_sections.cost(values),
    ]
  elif evidence_sections.applies(values):
    body += [evidence_sections.headline(values), evidence_sections.schemes(values)]
  else:
    body += [
      sections.headline(values),
      sections.per_class(values),
      sections.confusion(values),
      sections.localisation(values.get('localisation')),
    ]
  body += [
    anomaly_sections.galleries(galleries, map_scale),
    sections.mistakes(mistakes, ceiling),
    detection_sections.mistakes('Worst misses', _MISSES, misses),
    detection_sections.mistakes('Worst false alarms', _FALSE_ALARMS, false_alarms),
  ]
  if figures:
    body.append(tag('h2', 'Further figures'))
    body += [sections.figure(figure, caption) for caption, figure in figures]
  # How it learned comes after what it does.
  panels = {'max_panels': 12} if detection_sections.applies(values) else {}
  body += [
    sections.curves(records, **panels),
    sections.split(values.get('split')),
    sections.run(values),
  ]
  version = values.get('versions', {}).get('jaxdefect', '')
  body.append(tag('footer', f'Written by jaxdefect {version}'.strip()))
  return page.document(title, *(part for part in body if part))


def _known(values: dict[str, Any]) -> dict[str, Any]:
  """Without the metrics and intervals that are no numbers: what is missing is not shown."""
  known = dict(values)
  for part in ('metrics', 'intervals'):
    if part in known:
      known[part] = {name: one for name, one in known[part].items() if _is_known(one)}
  if known.get('floor'):
    known['floor'] = _known(known['floor'])
  return known


def _is_known(value: Any) -> bool:
  return value is not None and not (isinstance(value, list) and None in value)


def _check(report: Mapping[str, Any]) -> None:
  if not isinstance(report.get('metrics'), Mapping):
    raise ValueError(f'report has the keys {", ".join(map(str, report))}; metrics is needed.')


def _replace(path: pathlib.Path, text: str) -> None:
  """Written beside and moved, so that a crash leaves the old file or the new one."""
  partial = path.with_name(path.name + '.partial')
  try:
    # A file name that is no UTF-8 must not cost a finished run its report.
    with open(partial, 'w', encoding='utf-8', errors='backslashreplace') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
