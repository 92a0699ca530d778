"""The worst mistakes as pictures: what came in, what the model looked at, what it said.

Shape legend: N images of the stream, h x w cells of a map.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxdefect.contracts import Batch, Fitted
from jaxdefect.explain import gradcam, overlays


@dataclass(frozen=True, eq=False)
class Mistake:
  """One wrong prediction, ready to print.

  Attributes:
    image: [H,W] or [H,W,1 or 3] uint8, the picture.
    overlay: [H,W,3] uint8, the evidence for the predicted class over it; None without Grad-CAM.
    true: name of the true class.
    predicted: name of the predicted class.
    probability: of the predicted class, 0..1.
    true_probability: of the true class, 0..1.
    second: name of the class that came second.
    second_probability: of that class, 0..1.
    name: where the picture comes from, for example its path in the data set.
  """

  image: np.ndarray
  overlay: np.ndarray | None
  true: str
  predicted: str
  probability: float
  true_probability: float
  second: str
  second_probability: float
  name: str = ''


def evidence_ceiling(
  activations: Callable[..., tuple],
  fitted: Fitted,
  batches: Iterable[Batch],
  *,
  quantile: float = 0.95,
) -> float:
  """The one colour scale of a model, from training or validation pictures.

  Args:
    activations: ``Method.activations``.
    fitted: what predicts.
    batches: padded calibration batches.
    quantile: as in ``overlays.absolute_ceiling``.

  Returns:
    The ceiling, in the unit of ``gradcam``.
  """
  explain = jax.jit(functools.partial(gradcam.gradcam, activations, contrast=True))
  maps = (
    one
    for batch in batches
    for one in np.asarray(explain(fitted, batch)[1])[np.asarray(batch['valid'])]
  )
  return overlays.absolute_ceiling(maps, quantile=quantile)


def illustrate(
  rows: Sequence[Mapping[str, Any]],
  fitted: Fitted,
  batches: Iterable[Batch],
  *,
  activations: Callable[..., tuple] | None = None,
  ceiling: float | None = None,
  names: Sequence[str] | None = None,
) -> list[Mistake]:
  """Turns the rows of ``classification.worst_mistakes`` into pictures with their evidence.

  Only batches that hold a mistake are explained.

  Args:
    rows: mistakes; ``row`` counts the valid images of ``batches`` in their order.
    fitted: what predicts.
    batches: the padded batches that were predicted, in the same order.
    activations: ``Method.activations``; None gives pictures without overlays.
    ceiling: the colour scale (``evidence_ceiling``); needed with ``activations``.
    names: name of each image by ``batch['index']``, for example ``Source.names``.

  Returns:
    One ``Mistake`` per row, in the order of ``rows``.

  Raises:
    ValueError: if the ceiling is missing, or a row lies outside the stream.
  """
  if activations is not None and ceiling is None:
    raise ValueError('ceiling is None; the overlays need the one colour scale of the model.')
  explain = None
  if activations is not None:
    explain = jax.jit(functools.partial(gradcam.gradcam, activations, contrast=True))
  wanted = {int(row['row']): row for row in rows}
  found: dict[int, Mistake] = {}
  start = 0
  for batch in batches:
    places = np.flatnonzero(np.asarray(batch['valid']))
    here = [i for i in range(len(places)) if start + i in wanted]
    maps = None
    if here and explain is not None:
      targets = np.zeros(len(batch['valid']), np.int32)
      for i in here:
        targets[places[i]] = wanted[start + i]['predicted']
      maps = np.asarray(explain(fitted, batch, targets=targets)[1])
    for i in here:
      row, place = wanted[start + i], places[i]
      image = np.asarray(batch['image'][place])
      picture = None
      if maps is not None and ceiling is not None:
        picture = overlays.overlay(image, maps[place], ceiling=ceiling)
      found[start + i] = Mistake(
        image=image,
        overlay=picture,
        true=fitted.classes[row['true']],
        predicted=fitted.classes[row['predicted']],
        probability=float(row['probability']),
        true_probability=float(row['true_probability']),
        second=fitted.classes[row['second']],
        second_probability=float(row['second_probability']),
        name=names[int(batch['index'][place])] if names is not None else '',
      )
    start += len(places)
    if len(found) == len(wanted):
      break
  missing = sorted(set(wanted) - set(found))
  if missing:
    raise ValueError(f'rows names image {missing[0]}, but batches holds only {start}.')
  return [found[int(row['row'])] for row in rows]
