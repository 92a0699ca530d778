"""From a run and some pictures to rows of the review queue."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxdefect import data
from jaxdefect.contracts import RULES, VERDICTS, ClassScores, Fitted, Verdicts
from jaxdefect.data import decode, split_record
from jaxdefect.data.good_parts import GOOD
from jaxdefect.evaluate import thresholds
from jaxdefect.explain.overlays import save as save_picture
from jaxdefect.review import Prediction, ranking
from launch import experiment, finished_run, frozen, tasks, unseen


def score(
  run: finished_run.Finished,
  paths: Sequence[pathlib.Path],
  *,
  overlays: pathlib.Path | None = None,
) -> list[Prediction]:
  """What a run says of some pictures.

  Args:
    run: of a method that names classes, perhaps with an anomaly method beside it.
    paths: of the pictures.
    overlays: where what the model saw is drawn, as ``<sum>.png``; None draws nothing.

  Returns:
    One row a picture; of several with the same pixels the first.

  Raises:
    ValueError: a picture cannot be read, or the method names no classes.
  """
  source = data.Source(
    name='pictures',
    classes=('unknown',),
    names=tuple(str(path.resolve()) for path in paths),
    labels=np.zeros(len(paths), np.int32),
    read=lambda i: decode.read_image(paths[i]),
  )
  data.verify(source, range(len(source)))
  places = range(len(source))
  batches = experiment.eval_batches(run.config, source, places, source.classes)
  predictions, _ = tasks.predict_all(run.method, run.fitted, batches)
  head, anomaly, verdict, rule = _decisions(run, predictions)
  order = np.sort(np.asarray(head.probabilities, np.float64), axis=1)
  margin = order[:, -1] - order[:, -2]
  describe = _pooled(run.config, run.fitted)
  novelty = ranking.novelty(_described(describe, batches), _known(run, describe))
  asked = np.array([one == 'review' for one in verdict])
  priority = ranking.priority(margin, novelty, anomaly=anomaly, asked=asked)
  sums = split_record.pixel_sums(source, places)
  if overlays is not None:
    for place, picture, _ in tasks.of(predictions).draw(run, source, batches, []):
      overlays.mkdir(parents=True, exist_ok=True)
      save_picture(overlays / f'{sums[place]}.png', picture)
  rows: dict[str, Prediction] = {}
  for i, image in enumerate(sums):
    rows.setdefault(
      image,
      Prediction(
        image=image,
        path=source.names[i],
        verdict=verdict[i],
        rule=rule[i],
        label=run.fitted.classes[int(head.scores[i].argmax())],
        margin=float(margin[i]),
        anomaly=None if anomaly is None else float(anomaly[i]),
        novelty=float(novelty[i]),
        priority=float(priority[i]),
      ),
    )
  return list(rows.values())


def _decisions(
  run: finished_run.Finished, predictions: Any
) -> tuple[ClassScores, np.ndarray | None, list[str], list[str]]:
  """The head's scores, 1 - p of the anomaly method, the verdicts and their rules."""
  if isinstance(predictions, ClassScores):
    classes = run.fitted.classes
    named = [classes[k] for k in np.asarray(predictions.scores).argmax(axis=1)]
    verdict = ['ok' if name == GOOD else 'reject' for name in named]
    return predictions, None, verdict, [''] * len(named)
  if not isinstance(predictions, Verdicts):
    raise ValueError(
      f'{run.directory} names no classes, so that nobody could correct them; review needs a run of '
      'classifier, contrastive_margin or hybrid'
    )
  anomaly = None
  if run.fitted.calibration is not None:
    calibrated = np.asarray(run.fitted.calibration['scores'])
    anomaly = 1 - thresholds.p_values(np.asarray(predictions.anomaly.scores), calibrated)
  return (
    predictions.head,
    anomaly,
    [VERDICTS[v] for v in np.asarray(predictions.verdict)],
    [RULES[r] for r in np.asarray(predictions.rule)],
  )


def _pooled(config: Any, fitted: Fitted) -> Any:
  """The backbone of the run, averaged over its last map: pixels [n, H, W, C] -> [n, F]."""
  params, state = fitted.params, fitted.model_state
  if 'supervised' in params:
    params, state = params['supervised'], state['supervised']
  if 'backbone' not in params:
    raise ValueError(
      f'a run of {config.method.name} has no backbone to say how new a picture is; the review loop '
      'takes classifier, contrastive_margin and hybrid'
    )
  variables = {'params': params['backbone']}
  if 'backbone' in state.get('batch_stats', {}):
    variables['batch_stats'] = state['batch_stats']['backbone']
  return frozen.describer(config, variables)


def _described(describe: Any, batches: Iterable[Any]) -> np.ndarray:
  return np.concatenate([np.asarray(describe(b['image']))[b['valid']] for b in batches])


def _known(run: finished_run.Finished, describe: Any) -> np.ndarray:
  """[m, F] of the pictures that the run was trained on."""
  source, split = unseen.read_split(run.directory, run.config)
  batches = experiment.eval_batches(run.config, source, split.train, source.classes)
  return _described(describe, batches)
