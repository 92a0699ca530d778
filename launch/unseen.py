"""That a run has not learned from what it is tested on: its split, held against the hold-out.

A hold-out may be set aside, by ``launch.cross_validate``, after a run was trained. Only the sums of
the pixels, which both files keep, tell that then.
"""

import json
import pathlib

from ml_collections import ConfigDict

from jaxdefect import data
from jaxdefect.data import hold_out, split_record, splits
from launch import experiment

# Validation chooses steps and sets thresholds, and references are known by heart.
_TAUGHT = ('train', 'validation', 'references')


def require(directory: pathlib.Path, config: ConfigDict) -> None:
  """Refuses a run that has learned from what is held out.

  Args:
    directory: of the run.
    config: whose ``data`` have the hold-out; where there is none, every run is taken.

  Raises:
    ValueError: the run has learned from some of it.
  """
  path = experiment.hold_out_file(config.data)
  if path.exists():
    seen, number = _held_out(directory, path, *_TAUGHT)
    if seen:
      raise ValueError(
        f'{directory} was trained on {len(seen)} of the {number} pictures that {path} holds out, '
        f'{seen[0]} among them; train anew in another --workdir'
      )


def read_split(directory: pathlib.Path, config: ConfigDict) -> tuple[data.Source, splits.Split]:
  """``experiment.read_split``, which cannot say that a picture is missing as it is held out."""
  require(directory, config)
  path = experiment.hold_out_file(config.data)
  if path.exists():
    lost, _ = _held_out(directory, path, 'test')
    if lost:
      raise ValueError(
        f'{len(lost)} of the test pictures of {directory} were set aside after it was trained and '
        f'are in {path} now, {lost[0]} among them; train anew in another --workdir'
      )
  return experiment.read_split(directory, config)


def sums(directory: pathlib.Path) -> dict[str, dict[str, str]]:
  """The pictures of a run without its data: part -> name -> sum of the pixels."""
  path = directory / 'split.json'
  if not path.is_file():
    raise ValueError(f'{path} does not exist, so that nobody knows what the run was trained on')
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    return {
      part: {name: pixels for name, (_, pixels) in content[part].items()}
      for part in split_record.PARTS
    }
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'The file {path} is no split: {error or type(error).__name__}.') from error


def _held_out(directory: pathlib.Path, path: pathlib.Path, *parts: str) -> tuple[list[str], int]:
  """Names of the pictures in some parts of a run that are held out, and how many are in all."""
  held = {pixels for _, pixels in hold_out.read(path).images.values()}
  found = sums(directory)
  name = {pixels: name for part in parts for name, pixels in found[part].items()}
  return [name[pixels] for pixels in name if pixels in held], len(held)
