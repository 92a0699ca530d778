"""The loop after the first model: python -m launch.review --workdir=RUN [--images=DIR] ...

--images=DIR scores new pictures with the live model and queues what has no verdict; --missed=DIR
does the same for pictures in which a defect was passed: they come first. --queue=N prints the front
of the queue. --verdict=FILE:CLASS judges a picture, --undo takes the last verdict back
(--reviewer=NAME, by default the user). --readiness says whether the model may decide alone.
--retrain trains on all verdicts and promotes the new model only if it is not worse on the held-out
pictures; --promote=N overrules that, --rollback goes back. --export=coco:FILE or label_studio:FILE
writes the verdicts, --take=FILE takes such a file over. --history prints who did what. --serve
opens the page for all of this at http://127.0.0.1:8765/ (--host, --port). Everything is kept in
RUN/review/.
"""

import getpass
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from jaxdefect import data
from jaxdefect.data import decode
from jaxdefect.evaluate import thresholds
from jaxdefect.review import Conflict, Readiness, Store, Targets, assess, drift
from launch import (
  command,
  experiment,
  finished_run,
  retraining,
  review_exchange,
  review_runs,
  review_scores,
  unseen,
)

FILE = 'review.sqlite'


def define(values: flags.FlagValues) -> None:
  flags.DEFINE_string('workdir', None, 'folder of a finished run', flag_values=values)
  flags.DEFINE_string('images', '', 'folder of new pictures', flag_values=values)
  flags.DEFINE_string('missed', '', 'folder of pictures with a missed defect', flag_values=values)
  flags.DEFINE_integer('queue', 0, 'print so many pictures that wait', flag_values=values)
  flags.DEFINE_list('verdict', [], 'FILE:CLASS, several with commas', flag_values=values)
  flags.DEFINE_string('export', '', 'coco:FILE or label_studio:FILE', flag_values=values)
  flags.DEFINE_string('take', '', 'FILE of verdicts, COCO or Label Studio', flag_values=values)
  flags.DEFINE_bool('undo', False, 'take the last verdict back', flag_values=values)
  flags.DEFINE_string('reviewer', _user(), 'who judges', flag_values=values)
  flags.DEFINE_bool('readiness', False, 'may the model decide alone?', flag_values=values)
  flags.DEFINE_float('detection_rate', 0.95, 'that is asked for', flag_values=values)
  flags.DEFINE_float('false_reject_rate', 0.02, 'that is allowed', flag_values=values)
  flags.DEFINE_bool('retrain', False, 'train on all verdicts', flag_values=values)
  flags.DEFINE_integer('promote', 0, 'number of a model that is to predict', flag_values=values)
  flags.DEFINE_bool('rollback', False, 'go back to the model before', flag_values=values)
  flags.DEFINE_bool('history', False, 'print who did what', flag_values=values)
  flags.DEFINE_bool('progress', True, 'show a bar while training', flag_values=values)
  flags.DEFINE_bool('serve', False, 'open the page', flag_values=values)
  flags.DEFINE_string('host', '127.0.0.1', 'that the page is served at', flag_values=values)
  flags.DEFINE_integer('port', 8765, 'that the page is served at', flag_values=values)


def _user() -> str:
  """The user's name; in a container the number may have none."""
  try:
    return getpass.getuser()
  except (KeyError, OSError):
    return 'reviewer'


def main(values: flags.FlagValues) -> None:
  command.require(values, 'workdir')
  directory = pathlib.Path(values.workdir)
  with open_store(directory, who=values.reviewer) as store:
    for folder, missed in ((values.missed, True), (values.images, False)):
      if folder:
        _score(store, directory, data.images_in(folder), missed=missed, who=values.reviewer)
    for one in values.verdict:
      path, _, label = one.rpartition(':')
      judge(store, directory, pathlib.Path(path), label, reviewer=values.reviewer)
    if values.take:
      _take(store, directory, pathlib.Path(values.take), who=values.reviewer)
    if values.export:
      kind, _, file = values.export.partition(':')
      if kind not in review_exchange.FORMATS or not file:
        raise ValueError(
          f'--export is {values.export!r}; it can be {", ".join(review_exchange.FORMATS)} with a '
          'file, for example coco:verdicts.json'
        )
      verdicts = store.verdicts()
      review_exchange.write(pathlib.Path(file), verdicts, _classes(store, directory), kind)
      print(f'{len(verdicts)} verdicts written to {file}')
    if values.undo:
      back = store.undo(reviewer=values.reviewer)
      print(f'taken back: {back.path} as {back.label}')
    for queued in store.queue(limit=values.queue) if values.queue else ():
      one = queued.prediction
      print(
        f'{"MISSED " * queued.missed}{one.path}  {one.verdict} {one.label}, margin '
        f'{one.margin:.2f}, priority {one.priority:.3f}'
      )
    if values.retrain:
      result = retraining.retrain(directory, store, who=values.reviewer, progress=values.progress)
      print(f'{"promoted" if result.promoted else "not promoted"}: {result.reason}')
      for sentence in result.left_out:
        print(f'left out: {sentence}')
    if values.promote:
      store.promote(values.promote, who=values.reviewer, reason='by hand')
      print(f'live now: model {values.promote}')
    if values.rollback:
      model = store.roll_back(who=values.reviewer)
      print(f'live again: model {model}')
    if values.retrain or values.promote or values.rollback:
      _score_again(store, directory, who=values.reviewer)
    if values.history:
      for entry in store.audit():
        print(f'{entry["at"]}  {entry["who"]}  {entry["what"]}  {entry["details"]}')
    if values.readiness:
      targets = Targets(values.detection_rate, values.false_reject_rate)
      answer = readiness(directory, store, targets)
      print(f'{answer.verdict}: {answer.reason}')
    print(f'{store.waiting()} pictures wait, {len(store.verdicts())} are judged')
  if values.serve:
    from launch import review_server  # needs the extra [review]

    targets = Targets(values.detection_rate, values.false_reject_rate)
    review_server.serve(directory, targets=targets, host=values.host, port=values.port)


def open_store(directory: pathlib.Path, *, who: str) -> Store:
  """Opens the review of a run; the run itself is its first model."""
  finished_run.read_run(directory)  # a folder that holds no finished run is refused
  store = Store(directory / 'review' / FILE)
  if store.live() is None:
    store.promote(store.add_model(review_runs.FIRST, who=who, note='the first'), who=who)
  return store


def _score(
  store: Store, directory: pathlib.Path, paths: Sequence[pathlib.Path], *, missed: bool, who: str
) -> None:
  model, path = review_runs.live(store, directory)
  run = review_runs.read(directory, path)
  rows = review_scores.score(run, paths, overlays=directory / 'review' / 'overlays')
  fresh = store.predict(model, rows, who=who, missed=missed)
  print(
    f'{len(rows)} different pictures scored by model {model}, {fresh} of them are new in the queue'
  )


def _score_again(store: Store, directory: pathlib.Path, *, who: str) -> None:
  """What waits is ranked by the model that predicts now."""
  model, _ = review_runs.live(store, directory)
  waiting = store.queue(limit=store.waiting()) if store.waiting() else []
  old = [one for one in waiting if store.model_of(one.prediction.image) != model]
  paths = [pathlib.Path(one.prediction.path) for one in old]
  there = [path for path in paths if path.is_file()]
  if not there:
    return
  try:
    _score(store, directory, there, missed=False, who=who)
  except ValueError as error:  # the model predicts all the same
    print(f'not scored again: {error}')


def _classes(store: Store, directory: pathlib.Path) -> tuple[str, ...]:
  _, path = review_runs.live(store, directory)
  return review_runs.read(directory, path).fitted.classes


def _take(store: Store, directory: pathlib.Path, path: pathlib.Path, *, who: str) -> None:
  """Takes another tool's verdicts over; all are looked at before the first one counts."""
  found, classes = review_exchange.read(path), _classes(store, directory)
  files = []
  for one in found:
    if one.label not in classes:
      raise ValueError(
        f'{path} gives {one.path} the class {one.label!r}; the model knows {", ".join(classes)}'
      )
    file = pathlib.Path(one.path)
    files.append(file if file.is_absolute() else path.parent / file)
  images = [decode.pixel_hash(decode.read_image(file)) for file in files]
  taken, refused = 0, []
  for image, one in zip(images, found):
    try:
      store.judge(image, one.label, reviewer=one.reviewer or who)
      taken += 1
    except Conflict as error:
      refused.append(f'{one.path}: {error}')
  print(f'{taken} of {len(found)} verdicts taken over')
  for sentence in refused:
    print(f'left out: {sentence}')


def judge(
  store: Store, directory: pathlib.Path, path: pathlib.Path, label: str, *, reviewer: str
) -> int:
  """A verdict on a file, which must be the picture that was scored."""
  classes = _classes(store, directory)
  if label not in classes:
    raise ValueError(f'there is no class {label!r}; the model knows {", ".join(classes)}')
  image = decode.pixel_hash(decode.read_image(path))
  return store.judge(image, label, reviewer=reviewer)


def readiness(directory: pathlib.Path, store: Store, targets: Targets) -> Readiness:
  """Whether the live model may decide alone, by the held-out pictures."""
  model, path = review_runs.live(store, directory)
  run = review_runs.read(directory, path)
  first = experiment.read_config(directory)
  source, divided = experiment.load_divided(first.data)
  if divided is None:
    raise ValueError(f'nothing of {source.name} is held out; launch.cross_validate sets it aside')
  unseen.require(path, first)
  seeded = retraining.on_seeded(run, source.subset(divided.held))
  changed = None
  scores = store.anomalies(model)
  if run.fitted.calibration is not None and scores:
    # Only the order counts, so the p-values do as well as the scores.
    calibrated = np.asarray(run.fitted.calibration['scores'])
    changed = drift(1 - thresholds.p_values(calibrated, calibrated), np.asarray(scores))
  return assess(**seeded._asdict(), targets=targets, drift=changed)


if __name__ == '__main__':
  command.run(define, main)
