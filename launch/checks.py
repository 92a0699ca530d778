"""What a run cannot begin with, said in one sentence before anything is trained or written."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxdefect.data import Source, splits
from jaxdefect.data.good_parts import GOOD
from jaxdefect.evaluate import thresholds


def calibration(config: ConfigDict, source: Source, split: splits.Split) -> None:
  """Refuses, before anything is trained, thresholds that there are too few good parts for."""
  settings = config.get('calibration')
  if settings is None:
    return
  if settings.kind not in ('split', 'cross'):
    raise ValueError(f'calibration.kind is {settings.kind!r}; it can be split or cross')
  if settings.kind == 'cross' and config.steps and not anomaly_beside_a_head(config):
    raise ValueError(
      "calibration.kind 'cross' is for methods without training, but steps is "
      f"{config.steps}; use 'split', which holds good parts back"
    )
  held = good_images(source, split.validation if settings.kind == 'split' else split.train)
  different = set(split.groups(source)[list(held)].tolist())
  thresholds.check_enough(len(different), settings.false_alarm_rate)


def classes(config: ConfigDict, names: Sequence[str]) -> None:
  """Refuses to tell apart the classes of a data set that has one."""
  of_pictures = config.data.get('max_boxes') is None and 'episodes' not in config
  good_alone = 'calibration' in config and not anomaly_beside_a_head(config)
  if len(names) < 2 and of_pictures and not good_alone:
    raise ValueError(
      f'{config.method.name} tells classes apart, and the data have one alone, {names[0]!r}; put '
      'the pictures of each class in a folder of their own, or use patchcore, which needs good '
      'parts alone'
    )


def anomaly_beside_a_head(config: ConfigDict) -> bool:
  """Whether the method has an anomaly method, which takes no steps, beside a supervised head."""
  return 'anomaly' in config.method


def good_images(source: Source, indices: Any) -> tuple[int, ...]:
  """Those of ``indices`` that are good parts."""
  good = source.class_number(GOOD)
  return tuple(int(i) for i in indices if source.labels[i] == good)
