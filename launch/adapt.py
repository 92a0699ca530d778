"""Extends a finished run without training: python -m launch.adapt --workdir=RUN --references=DIR
--out=NEWRUN [--held_out=DIR] [--forget=NAME,NAME].

DIR holds a folder of pictures per class; for an anomaly method the one folder good/. Its pictures
are added to what the run knows, and those that --forget names (as in the data set, or in an earlier
DIR) are taken out of it. NEWRUN is a run like the old one, which stays as it is. An anomaly method
keeps its threshold, unless good parts that it has not seen lie in --held_out=DIR/good.
"""

import importlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from absl import flags

from jaxdefect import data, train
from jaxdefect.contracts import Batch, Fitted, References
from jaxdefect.data import duplicates, hold_out, split_record
from jaxdefect.data.good_parts import GOOD
from jaxdefect.evaluate import thresholds
from launch import command, experiment, finished_run

# Which pictures were added, beside the run's split.
ADDED = 'added.json'
_COPIED = ('config.json', 'split.json', 'evidence.json')


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
  fitted, added = run.fitted, _added(run.directory)
  if values.forget:
    fitted, added = _forget(run, fitted, added, values.forget)
  source = None
  if values.references:
    source = data.load('folder', dir=values.references, name=values.references)
    held = experiment.hold_out_file(run.config.data)
    if held.exists():
      hold_out.refuse(source, hold_out.read(held))
    start = _first_free(fitted, added)
    known = experiment.references(run.config, source, range(len(source)))
    known = References(known.classes, _Shifted(known.batches, start))
    fitted = run.method.adapt(jax.random.key(int(run.config.seeds[0])), fitted, known)
    added = {**added, **{name: start + i for i, name in enumerate(source.names)}}
  if values.held_out:
    fitted = _recalibrated(run, fitted, source, values.held_out)
  partial = out.with_name(out.name + '.tmp')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    for name in _COPIED:
      if (run.directory / name).exists():
        shutil.copy2(run.directory / name, partial / name)
    (partial / ADDED).write_text(json.dumps(added, indent=1, ensure_ascii=False) + '\n')
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


def _added(directory: pathlib.Path) -> dict[str, int]:
  path = directory / ADDED
  return json.loads(path.read_text()) if path.exists() else {}


def _indices(fitted: Fitted) -> np.ndarray:
  """Numbers of the images that a memory has kept apart, where it has."""
  memory = fitted.memory or {}
  kept = [np.asarray(memory[name]).ravel() for name in ('image', 'index') if name in memory]
  return np.concatenate(kept) if kept else np.zeros(0, int)


def _first_free(fitted: Fitted, added: dict[str, int]) -> int:
  """New images go on counting after the largest number, so that none means two images."""
  return int(max(*_indices(fitted), *added.values(), -1, -1)) + 1


def _forget(
  run: finished_run.Finished, fitted: Fitted, added: dict[str, int], names: Sequence[str]
) -> tuple[Fitted, dict[str, int]]:
  module = importlib.import_module(f'jaxdefect.methods.{run.config.method.name}')
  if not hasattr(module, 'forget'):
    raise ValueError(f'{run.config.method.name} cannot forget single pictures; fit it anew')
  place = dict(added)
  if any(name not in place for name in names):
    source, split = experiment.read_split(run.directory, run.config)
    if split.report.get('images', len(source)) != len(source):
      raise ValueError(
        f'{source.name} had {split.report["images"]} pictures when {run.directory} was fitted and '
        f'has {len(source)} now, so its memory cannot be told by name; fit it anew'
      )
    place |= {source.names[i]: i for i in split.train + split.references}
  for name in names:
    if name not in place:
      raise ValueError(f'{run.directory} was not fitted to a picture {name!r}')
  chosen = np.array([place[name] for name in names])
  left = {name: i for name, i in added.items() if name not in names}
  return module.forget(fitted, chosen), left


def _recalibrated(
  run: finished_run.Finished, fitted: Fitted, references: data.Source | None, folder: str
) -> Fitted:
  held = data.load('folder', dir=folder, name=folder)
  if held.classes != (GOOD,):
    raise ValueError(
      f'{folder} holds the classes {", ".join(held.classes)}; only good parts, in a folder '
      f'{GOOD!r}, can set the threshold'
    )
  if references is not None:
    new = split_record.pixel_sums(references, range(len(references)))
    seen = dict(zip(new, references.names))
    for name, pixels in zip(held.names, split_record.pixel_sums(held, range(len(held)))):
      if pixels in seen:
        raise ValueError(
          f'{name} in {folder} is the same picture as {seen[pixels]} in --references; what sets '
          'the threshold must not be known'
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
