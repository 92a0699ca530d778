"""Extends a finished run without training: python -m launch.adapt --workdir=RUN --references=DIR
--out=NEWRUN [--held_out=DIR] [--forget=NAME,NAME].

DIR holds a folder of pictures per class; for an anomaly method the one folder good/. Its pictures
are added to what the run knows, and those that --forget names (as in the data set, or in an earlier
DIR) are taken out of it. A name that both have is written with the data set's or the folder's name
before it: more/good/0.png. NEWRUN is a run like the old one, which stays as it is. An anomaly
method keeps its threshold, unless good parts that it has not seen lie in --held_out=DIR/good.
"""

import importlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from jaxdefect import data, train
from jaxdefect.contracts import Batch, Fitted, References
from jaxdefect.data import decode, duplicates, hold_out, split_record
from jaxdefect.data.good_parts import GOOD
from jaxdefect.evaluate import thresholds
from launch import command, experiment, finished_run, unseen

# Which pictures were added, beside the run's split.
ADDED = 'added.json'
# Parts of a split that a memory is made of.
_FITTED = ('train', 'references')
_COPIED = ('config.json', 'split.json', 'evidence.json')


class _Added(NamedTuple):
  """A picture that was added to a run: its number in the memory and the sum of its pixels."""

  number: int
  pixels: str  # '' where an earlier version did not keep it


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('references', '', 'folder of class folders of pictures', flag_values=values)
  flags.DEFINE_string('out', None, 'folder of the new run, must not exist yet', flag_values=values)
  flags.DEFINE_string(
    'held_out',
    '',
    'folder with good/: unseen good parts that set the threshold',
    flag_values=values,
  )
  flags.DEFINE_list('forget', [], 'names of pictures to take out', flag_values=values)


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir', 'out')
  out = pathlib.Path(values.out)
  if out.exists():
    raise ValueError(f'{out} exists already; --out must name a new folder')
  if not values.references and not values.forget:
    raise ValueError('--references=DIR or --forget=NAME is needed: there is nothing to change')
  run = finished_run.read_run(pathlib.Path(values.workdir))
  if experiment.max_boxes(run.config) is not None:
    raise ValueError(f'{run.directory} finds boxes; pictures in class folders cannot extend it')
  fitted, added = run.fitted, _read_added(run.directory)
  if values.forget:
    fitted, added = _forget(run, fitted, added, values.forget)
  source = None
  if values.references:
    source = _open(run, values.references)
    held = experiment.hold_out_file(run.config.data)
    if held.exists():
      hold_out.refuse(source, hold_out.read(held))
    start = _first_free(run, fitted, added)
    added = added | _new(run, source, added, start=start)
    known = experiment.references(run.config, source, range(len(source)))
    known = References(known.classes, _Shifted(known.batches, start))
    fitted = run.method.adapt(jax.random.key(int(run.config.seeds[0])), fitted, known)
  if values.held_out:
    fitted = _recalibrated(run, fitted, added, values.held_out)
  partial = out.with_name(out.name + '.tmp')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    for name in _COPIED:
      if (run.directory / name).exists():
        shutil.copy2(run.directory / name, partial / name)
    text = json.dumps(added, indent=1, ensure_ascii=False) + '\n'
    (partial / ADDED).write_text(text, encoding='utf-8')
    train.save_fitted(partial / 'fitted.safetensors', fitted)
    partial.replace(out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  count = 0 if source is None else len(source)
  print(f'{count} pictures added, {len(values.forget)} taken out: {out}')
  if fitted.calibration is not None:
    threshold = float(fitted.calibration['threshold'])
    kept = 'set again from' if values.held_out else 'kept: give good parts that it has not seen as'
    print(f'threshold {threshold:.5g}, {kept} --held_out')


def _open(run: finished_run.Finished, folder: str) -> data.Source:
  """A folder of class folders, read as the run's own pictures are, so that sums can be compared."""
  window = tuple(run.config.data.get('sixteen_bit_range', decode.FULL_RANGE))
  return data.load('folder', dir=folder, name=folder, sixteen_bit_range=window)


def _read_added(directory: pathlib.Path) -> dict[str, _Added]:
  """What was added to a run, by full name: ``folder/class/picture``."""
  path = directory / ADDED
  found = {}
  for name, row in (json.loads(path.read_text('utf-8')) if path.exists() else {}).items():
    if isinstance(row, int):  # of an earlier version, which kept neither folder nor pixels
      found[f'added/{name}'] = _Added(row, '')
    else:
      found[name] = _Added(*row)
  return found


def _in_split(directory: pathlib.Path, *parts: str) -> dict[str, str]:
  """Full name, ``data set/name``, -> sum of the pixels of what is in these parts of the split."""
  start, found = _read_split(directory).get('data', ''), unseen.sums(directory)
  return {f'{start}/{name}': pixels for part in parts for name, pixels in found[part].items()}


def _read_split(directory: pathlib.Path) -> dict[str, Any]:
  path = directory / 'split.json'
  return json.loads(path.read_text('utf-8')) if path.exists() else {}


def _new(
  run: finished_run.Finished, source: data.Source, added: dict[str, _Added], *, start: int
) -> dict[str, _Added]:
  """Numbers for pictures that are to be added, or refuses those of the test and unclear names."""
  tested = {pixels: name for name, pixels in _in_split(run.directory, 'test').items()}
  taken = added.keys() | _in_split(run.directory, *_FITTED).keys()
  folder, found = pathlib.Path(source.name).resolve().name, {}
  for i, pixels in enumerate(split_record.pixel_sums(source, range(len(source)))):
    name = f'{folder}/{source.names[i]}'
    if pixels in tested:
      raise ValueError(
        f'{source.names[i]} in {source.name} is the same picture as {tested[pixels]}, by which '
        f'{run.directory} is tested; what tests must not be known'
      )
    if name in taken:
      raise ValueError(
        f'{run.directory} knows a picture {name} already; put what is new into a folder of '
        f'another name than {source.name}'
      )
    found[name] = _Added(start + i, pixels)
  return found


def _indices(fitted: Fitted) -> np.ndarray:
  """Numbers of the images that a memory has kept apart, where it has."""
  memory = fitted.memory or {}
  kept = [np.asarray(memory[name]).ravel() for name in ('image', 'index') if name in memory]
  return np.concatenate(kept) if kept else np.zeros(0, int)


def _first_free(run: finished_run.Finished, fitted: Fitted, added: dict[str, _Added]) -> int:
  """New images go on counting after the largest number, so that none means two images."""
  # A coreset may hold nothing of the data set's last picture, which has its number all the same.
  images = _read_split(run.directory).get('report', {}).get('images', 0)
  return int(max(images - 1, -1, *_indices(fitted), *(one.number for one in added.values()))) + 1


def _forget(
  run: finished_run.Finished, fitted: Fitted, added: dict[str, _Added], names: Sequence[str]
) -> tuple[Fitted, dict[str, _Added]]:
  module = importlib.import_module(f'jaxdefect.methods.{run.config.method.name}')
  if not hasattr(module, 'forget'):
    raise ValueError(f'{run.config.method.name} cannot forget single pictures; fit it anew')
  # Full name -> the name as in the picture's own folder.
  start = len(_read_split(run.directory).get('data', '')) + 1
  known = {full: full[start:] for full in _in_split(run.directory, *_FITTED)}
  known |= {full: full.partition('/')[2] for full in added}
  chosen = {_meant(run.directory, known, name) for name in names}
  place = {full: one.number for full, one in added.items()}
  if not chosen <= place.keys():
    source, split = experiment.read_split(run.directory, run.config)
    if split.report.get('images', len(source)) != len(source):
      raise ValueError(
        f'{source.name} had {split.report["images"]} pictures when {run.directory} was fitted and '
        f'has {len(source)} now, so its memory cannot be told by name; fit it anew'
      )
    place |= {f'{source.name}/{source.names[i]}': i for i in split.train + split.references}
  left = {full: one for full, one in added.items() if full not in chosen}
  return module.forget(fitted, np.array(sorted(place[full] for full in chosen))), left


def _meant(directory: pathlib.Path, known: dict[str, str], name: str) -> str:
  """The full name of the one picture that a name means, full or as in the picture's folder."""
  if name in known:
    return name
  found = [full for full, short in known.items() if short == name]
  if not found:
    raise ValueError(f'{directory} was not fitted to a picture {name!r}')
  if len(found) > 1:
    raise ValueError(
      f'--forget={name} means {len(found)} pictures of {directory}: {", ".join(found)}; give one '
      'of these names'
    )
  return found[0]


def _recalibrated(
  run: finished_run.Finished, fitted: Fitted, added: dict[str, _Added], folder: str
) -> Fitted:
  held = _open(run, folder)
  if held.classes != (GOOD,):
    raise ValueError(
      f'{folder} holds the classes {", ".join(held.classes)}; only good parts, in a folder '
      f'{GOOD!r}, can set the threshold'
    )
  seen = {pixels: name for name, pixels in _in_split(run.directory, *_FITTED).items()}
  seen |= {one.pixels: name for name, one in added.items()}
  for name, pixels in zip(held.names, split_record.pixel_sums(held, range(len(held)))):
    if pixels in seen:
      raise ValueError(
        f'{name} in {folder} is the same picture as {seen[pixels]}, which is known; what sets the '
        'threshold must not be'
      )
  if fitted.calibration is None:
    raise ValueError(f'{run.directory} has no threshold that --held_out could set again')
  rate = float(str(np.float32(fitted.calibration['false_alarm_rate'])))
  batches = experiment.eval_batches(run.config, held, range(len(held)), held.classes)
  return thresholds.calibrate(
    run.method.predict,
    fitted,
    batches,
    false_alarm_rate=rate,
    groups=duplicates.find(held),
  )


class _Shifted:
  """Batches whose images count from another number on."""

  def __init__(self, batches: Iterable[Batch], start: int):
    self._batches, self._start = batches, start

  def __iter__(self) -> Iterator[Batch]:
    for batch in self._batches:
      index = np.where(batch['valid'], batch['index'] + self._start, batch['index'])
      yield {**batch, 'index': index.astype(np.int32)}


if __name__ == '__main__':
  command.run(define, main)
