"""The scores of a config's method, trained anew for every fold.

Every fold is trained from the same start weights with the same key and the number of steps that the
config says, and is kept in ``folds/`` when it is done: an interrupted run goes on with the next.
The network is compiled once for all of them. Nothing is chosen by a validation part: a fold has
none, so the state after the last step counts.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdefect import data, train
from jaxdefect.contracts import AnomalyMaps, ClassScores, DataSpec, Verdicts, to_fitted
from jaxdefect.data import split_record, splits
from jaxdefect.data.folds import Fold
from jaxdefect.data.good_parts import GOOD
from jaxdefect.train.progress import Progress
from launch import experiment, tasks
from launch.train import reference_images


class TrainedFolds:
  """A ``cross_validation.Scorer``.

  Args:
    config: of the method; ``steps`` for each fold.
    source: the data set.
    places: [n] places in it that the folds count in.
    positive: name of the positive class.
    directory: where finished folds are kept.
    seed: of initialisation, batches and augmentation.
    progress: show a bar, or plain lines where there is no terminal.

  Raises:
    ValueError: the method finds boxes or learns from other products, which has no folds, or does
      not know two kinds of picture.
  """

  def __init__(
    self,
    config: Any,
    source: data.Source,
    places: Sequence[int],
    *,
    positive: str,
    directory: pathlib.Path,
    seed: int = 0,
    progress: bool = True,
  ):
    if experiment.max_boxes(config) is not None or 'episodes' in config:
      raise ValueError(
        f'{config.method.name} finds boxes or learns from other products; cross-validation is of '
        'methods that score single pictures'
      )
    self._config, self._source, self._seed = config, source, seed
    self.decides = config.split.kind != 'good_only'  # without a threshold these only rank
    self._places, self._positive = np.asarray(places, int), positive
    # A picture may be replaced under its name between two calls.
    self._sums = split_record.pixel_sums(source, range(len(source)))
    self._directory, self._progress = directory / 'folds', progress
    self._method = experiment.make_method(config, steps=config.steps)
    self._pretrained, self.start_weights = experiment.load_pretrained(config)

  def __call__(self, folds: Sequence[Fold]) -> list[np.ndarray]:
    """The scores of each fold's test images, larger for positives."""
    bar = Progress(len(folds), enabled=self._progress and len(folds) > 1)
    found = []
    try:
      for number, fold in enumerate(folds):
        found.append(self.score(self._places[fold.train], self._places[fold.test]))
        bar.update(number + 1, {})
    finally:
      bar.close()
    return found

  def score(self, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Trains on some places of the source and scores others: [t]."""
    names = self._source.names
    parts = ['\n'.join(f'{names[i]} {self._sums[i]}' for i in part) for part in (training, test)]
    digest = hashlib.sha256('\n\n'.join(parts).encode()).hexdigest()[:24]
    path = self._directory / f'{digest}.json'
    if path.exists():
      kept = json.loads(path.read_text())
      return np.array([kept[names[i]] for i in test])
    scores = self._trained(training, test)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    rows = {names[i]: float(score) for i, score in zip(test, scores)}
    partial.write_text(json.dumps(rows, ensure_ascii=False) + '\n', encoding='utf-8')
    partial.replace(path)
    return scores

  def _trained(self, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    config, source, method = self._config, self._source, self._method
    if config.split.kind == 'good_only':
      training = training[source.labels[training] == source.class_number(GOOD)]
    split = splits.Split(tuple(training.tolist()), (), tuple(test.tolist()))
    classes = experiment.classes_of(config, source, split.train)
    spec = DataSpec(
      batch=experiment.batch_spec(config),
      classes=classes,
      counts=source.counts(split.train, classes=classes),
    )
    made = experiment.Experiment(
      config, source, split, spec, method, self._pretrained, self.start_weights, {}
    )
    key_train, key_adapt = jax.random.split(jax.random.key(self._seed))
    state = train.fit(
      method,
      key_train,
      spec,
      experiment.training_stream(made, self._seed),
      steps=config.steps,
      pretrained=self._pretrained,
      references=experiment.references(config, source, split.train),
      devices=config.devices,
      progress=False,
    )
    known = experiment.references(config, source, reference_images(made))
    fitted = method.adapt(key_adapt, to_fitted(state, classes), known)
    batches = experiment.eval_batches(config, source, split.test, fitted.classes)
    predictions, _ = tasks.predict_all(method, fitted, batches)
    return positive_scores(predictions, fitted.classes, self._positive)


def positive_scores(predictions: Any, classes: Sequence[str], positive: str) -> np.ndarray:
  """[n] one score per picture, larger for the positive class.

  Of ``ClassScores``, and of the head in ``Verdicts``, the margin of the positive class above the
  best other one, which is above 0 where the method decides for it; of ``AnomalyMaps`` the score.
  """
  if isinstance(predictions, Verdicts):
    predictions = predictions.head
  if isinstance(predictions, AnomalyMaps):
    if positive == GOOD:
      raise ValueError('an anomaly method scores what is not good; --positive cannot be good')
    return np.asarray(predictions.scores, np.float64)
  assert isinstance(predictions, ClassScores)
  scores, place = np.asarray(predictions.scores, np.float64), list(classes).index(positive)
  return scores[:, place] - np.delete(scores, place, axis=1).max(axis=1)
