"""From verdicts to a new model, which is promoted only where it is not worse on the seeded set."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxdefect import data
from jaxdefect.contracts import VERDICTS, Verdicts
from jaxdefect.data import decode, duplicates, hold_out, split_record, splits
from jaxdefect.data.good_parts import GOOD
from jaxdefect.review import Store, Verdict
from launch import cross_validate, experiment, finished_run, review_runs, tasks, train, unseen

# Settings of data.* that belong to the data set that a run was trained on first.
_KEPT = ('image_size', 'interpolation')
# Parts of the first run that say how good a model is, or where its thresholds lie.
_TESTING = ('test', 'validation')


class Seeded(NamedTuple):
  """What a model does on the parts that are held out.

  Attributes:
    found: defective ones that it does not pass, of
    defects: all defective ones.
    rejected: good ones that it rejects, of
    good: all good ones.
  """

  found: int
  defects: int
  rejected: int
  good: int


class Retrained(NamedTuple):
  """What came of a retraining.

  Attributes:
    model: number in the store.
    directory: of the run.
    promoted: whether it predicts from now on.
    reason: one sentence.
    left_out: verdicts that did not train, each with its reason.
  """

  model: int
  directory: pathlib.Path
  promoted: bool
  reason: str
  left_out: tuple[str, ...]


def retrain(
  run_directory: pathlib.Path, store: Store, *, who: str, progress: bool = True
) -> Retrained:
  """Trains on the first run's pictures and all verdicts; goes on where it was interrupted.

  Args:
    run_directory: of the run that the review began with.
    store: of the review.
    who: for the audit trail.
    progress: show a bar.

  Returns:
    The ``Retrained``.

  Raises:
    ValueError: nothing is held out, the first or the live model was trained on what is, or no
      verdict may train.
  """
  config = experiment.read_config(run_directory)
  source, divided = experiment.load_divided(config.data)
  if divided is None:
    raise ValueError(
      f'nothing of {source.name} is held out, so that nobody can say whether a new model is worse; '
      'launch.cross_validate sets some aside'
    )
  for one in (run_directory, review_runs.live(store, run_directory)[1]):
    unseen.require(one, config)  # said before a model is trained that nothing can be compared with
  held = hold_out.read(experiment.hold_out_file(config.data))
  verdicts = store.verdicts()
  if not verdicts:
    raise ValueError('there is no verdict yet; judge some pictures first')
  judged, left_out = _pictures(verdicts, held, unseen.sums(run_directory))
  if not judged:
    raise ValueError(f'none of the {len(verdicts)} verdicts may train; {left_out[0]}')
  digest = hashlib.sha256(''.join(f'{v.number} {v.label}\n' for v, _ in judged).encode())
  name = f'{review_runs.RUNS}/{digest.hexdigest()[:12]}'
  directory = run_directory / name
  merged = _merge(run_directory, config, judged, directory)
  seed = int(config.seeds[0])
  train.train_seed(merged, seed, directory, progress=progress)

  model = store.add_model(name, who=who, note=f'{len(judged)} verdicts')
  evidence = cross_validated(merged, directory)
  live, path = review_runs.live(store, run_directory)
  if live == model:
    return Retrained(model, directory, True, 'it is the live model already', tuple(left_out))
  whole = source.subset(divided.held)
  for one in (path, directory):
    unseen.require(one, config)
  before = on_seeded(review_runs.read(run_directory, path), whole)
  after = on_seeded(review_runs.read(run_directory, directory), whole)
  said = (
    f'on the seeded set it finds {after.found} of {after.defects} defects (before {before.found}) '
    f'and rejects {after.rejected} of {after.good} good parts (before {before.rejected}){evidence}'
  )
  if after.found < before.found or after.rejected > before.rejected:
    store.refuse(model, who=who, reason=said)
    return Retrained(model, directory, False, said, tuple(left_out))
  store.promote(model, who=who, reason=said)
  return Retrained(model, directory, True, said, tuple(left_out))


def cross_validated(config: ConfigDict, directory: pathlib.Path) -> str:
  """What all labelled pictures teach a head on the start weights, as the end of a sentence."""
  if not config.pretrained.weights:
    return ''  # random features say nothing
  found = cross_validate.run(
    config,
    directory / 'cross_validation',
    positive=GOOD,
    frozen=True,
    size=0,
    progress=False,
  )
  low, high = found['intervals']['auroc/k_fold']
  return (
    f'; k-fold AUROC of {found["n"]} labelled pictures {found["metrics"]["auroc/k_fold"]:.3f} '
    f'[{low:.3f}, {high:.3f}]'
  )


def on_seeded(run: finished_run.Finished, held: data.Source) -> Seeded:
  """Decides about the held-out parts; of near-copies, which are one part, the worst counts."""
  batches = experiment.eval_batches(run.config, held, range(len(held)), run.fitted.classes)
  predictions, seen = tasks.predict_all(run.method, run.fitted, batches)
  good = run.fitted.classes.index(GOOD)
  defective = seen['label'] != good
  if isinstance(predictions, Verdicts):
    verdict = np.asarray(predictions.verdict)
    passed, rejected = verdict == VERDICTS.index('ok'), verdict == VERDICTS.index('reject')
  else:
    passed = np.asarray(predictions.scores).argmax(axis=1) == good
    rejected = ~passed
  copies = duplicates.find(dataclasses.replace(held, groups=None))
  part = np.unique(np.stack([copies, defective]), axis=1, return_inverse=True)[1]
  passed, rejected = (np.bincount(part, weights=one) > 0 for one in (passed, rejected))
  defective = np.bincount(part, weights=defective) > 0
  return Seeded(
    found=int((~passed & defective).sum()),
    defects=int(defective.sum()),
    rejected=int((rejected & ~defective).sum()),
    good=int((~defective).sum()),
  )


def _pictures(
  verdicts: Sequence[Verdict], held: hold_out.HoldOut, parts: dict[str, dict[str, str]]
) -> tuple[list[tuple[Verdict, np.ndarray]], list[str]]:
  """The judged pictures as they were judged, and what must not train: what tests it, for one.

  Args:
    verdicts: of people.
    held: what is held out.
    parts: of the first run, which stay what they are: part -> name -> sum of the pixels.
  """
  seeded = {pixels for _, pixels in held.images.values()}
  kept_apart = {pixels: part for part in _TESTING for pixels in parts[part].values()}
  kept, left_out = [], []
  for one in verdicts:
    path = pathlib.Path(one.path)
    if one.image in seeded:
      left_out.append(f'{path} is held out')
      continue
    if one.image in kept_apart:
      left_out.append(f'{path} is in the {kept_apart[one.image]} part')
      continue
    if not path.is_file():
      left_out.append(f'{path} is not there any more')
      continue
    pixels = decode.read_image(path)
    if decode.pixel_hash(pixels) != one.image:
      left_out.append(f'{path} has changed since it was judged')
      continue
    kept.append((one, pixels))
  return kept, left_out


def _merge(
  run_directory: pathlib.Path,
  config: ConfigDict,
  judged: Sequence[tuple[Verdict, np.ndarray]],
  directory: pathlib.Path,
) -> ConfigDict:
  """Writes the pictures of the first run and the judged ones as class folders, with their split."""
  source, split = unseen.read_split(run_directory, config)
  folder = (directory / review_runs.PICTURES).resolve()
  _tell_place(directory, folder)
  parts: dict[str, list[str]] = {part: [] for part in split_record.PARTS}
  for part in split_record.PARTS:
    for i in getattr(split, part):
      pixels = np.asarray(source.read(i))
      name = f'{source.classes[source.labels[i]]}/{_file_name(source.names[i])}'
      _write(folder / name, pixels)
      parts[part].append(name)
  for one, pixels in judged:
    name = f'{one.label}/judged-{one.image[:16]}.png'
    _write(folder / name, pixels)
    parts['train'].append(name)
  merged = ConfigDict(config.to_dict())
  merged.data = ConfigDict(
    {
      **{'name': 'folder', 'dir': str(folder), 'lots': '', 'hold_out': ''},
      **{name: config.data[name] for name in _KEPT},
    }
  )
  whole = experiment.load_source(merged.data)
  place = {name: i for i, name in enumerate(whole.names)}
  made = splits.Split(
    **{part: tuple(place[name] for name in names) for part, names in parts.items()},
    report={
      'kind': config.split.kind,
      'seed': int(config.seeds[0]),
      'verdicts': len(judged),
      'counts': {
        part: dict(zip(whole.classes, whole.counts([place[name] for name in names])))
        for part, names in parts.items()
        if names
      },
      'near_duplicates': [],
      'left_out': [],
    },
  )
  if not (directory / 'split.json').exists():
    splits.write(directory / 'split.json', whole, made)
  return merged


def _tell_place(directory: pathlib.Path, folder: pathlib.Path) -> None:
  """Tells what an interrupted retraining wrote that its pictures lie elsewhere now.

  It would be the run of another config, if the review was moved or --workdir is written otherwise.
  """
  for path in (directory / 'config.json', directory / 'cross_validation' / 'config.json'):
    if path.exists():
      content = json.loads(path.read_text())
      content['data']['dir'] = str(folder)
      partial = path.with_suffix('.partial')
      partial.write_text(json.dumps(content, indent=1))
      partial.replace(path)


def _file_name(name: str) -> str:
  """A name of its own for every picture of a source, flat: a/b.jpg and a_b.jpg stay apart."""
  digest = hashlib.sha256(name.encode()).hexdigest()[:8]
  return f'{pathlib.PurePosixPath(name).stem}-{digest}.png'


def _write(path: pathlib.Path, pixels: np.ndarray) -> None:
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix('.partial')
  with open(partial, 'wb') as file:
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, 'PNG')
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
