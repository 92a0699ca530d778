"""What training will see: the contact sheet of a run's random views."""

import functools
import inspect
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxdefect.data import augment, view_geometry
from jaxdefect.explain import contact_sheet
from launch import experiment

VIEWS = 7
FILE = 'augmentation.png'
CAPTION = (
  'Augmentation: one training picture of each class as it is, and random views of it as training '
  'draws them. It should be recognisable in nearly all of them; where the defect is often cut '
  'away, a greater first number of --config.method.augmentation.crop_scale crops less. '
  'Where a direction tells classes apart, quarter_turns=False there keeps lines upright or level, '
  'and angle_limits, in a config of your own, does so for single classes.'
)


def sheet(made: experiment.Experiment, seed: int) -> Figure | None:
  """Draws the views that ``method.augmentation`` makes of one training picture per class.

  Args:
    made: the experiment.
    seed: of the run.

  Returns:
    The figure, of the target's pictures where tasks are trained on; None where nothing is
    augmented, or by other means than ``random_views`` (boxes).

  Raises:
    ValueError: for a setting that does not exist or is out of range, or an unknown class.
  """
  config, classes = made.config, made.spec.classes
  if experiment.max_boxes(config) is not None:
    return None
  given = config.method.to_dict().get('augmentation')
  if given is None:
    return None
  settings = _checked(given)
  limits = settings.pop('angle_limits', None) or {}
  if limits:
    settings['angle_limits'] = view_geometry.class_limits(limits, classes)
    _check_limited(made)
  image, label, index = _first_of_each_class(made)
  # One view of every class per call: a single program.
  draw = jax.jit(functools.partial(augment.random_views, **settings))
  key = jax.random.key(seed)
  views = [
    np.asarray(draw(jax.random.fold_in(key, number), image, index, label=label))
    for number in range(VIEWS)
  ]
  rows = [
    contact_sheet.Row(
      classes[row_label],
      image[row],
      np.stack([view[row] for view in views]),
      note=_note(limits.get(classes[row_label]), **settings),
    )
    for row, row_label in enumerate(label)
  ]
  return contact_sheet.contact_sheet(rows)


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
  parameters = inspect.signature(augment.random_views).parameters.values()
  allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != 'label']
  for name in settings:
    if name not in allowed:
      raise ValueError(f'method.augmentation has no setting {name!r} (it has {", ".join(allowed)})')
  return settings


def _check_limited(made: experiment.Experiment) -> None:
  """Refuses limits that the method would not keep to."""
  state = jax.eval_shape(lambda key: made.method.init(key, made.spec), jax.random.key(0))
  if 'angle_limits' not in state.model_state:
    raise ValueError(
      f'method {made.config.method.name} does not know classes when it draws views, so '
      'method.augmentation.angle_limits cannot be set; its angle holds for all.'
    )


def _note(
  limit: float | None,
  *,
  angle: float = 0.0,
  flips: bool = True,
  quarter_turns: bool = True,
  **_: Any,
) -> str:
  """What a directional class may do."""
  if limit is None or limit >= view_geometry.DIRECTIONAL:
    return ''
  upside_down = ' or half a turn' if flips or quarter_turns else ''
  return f'±{min(angle, limit):g}°{upside_down}'


def _first_of_each_class(made: experiment.Experiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Image [K, H, W, C], label [K] and index [K] of the first training picture of each class."""
  source, classes = made.source, made.spec.classes
  first: dict[int, int] = {}
  for i in made.split.train:
    first.setdefault(int(source.labels[i]), i)
  chosen = [
    first[source.classes.index(name)] for name in classes if source.classes.index(name) in first
  ]
  parts: dict[str, list] = {'image': [], 'label': [], 'index': []}
  for batch in experiment.eval_batches(made.config, source, chosen, classes):
    keep = np.asarray(batch['valid'])
    for name, rows in parts.items():
      rows.append(np.asarray(batch[name])[keep])
  image, label, index = (np.concatenate(rows) for rows in parts.values())
  return image, label, index
