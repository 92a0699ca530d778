"""What a detector makes of a class that it never trained on: AP from k boxes, others before, after.

Only the prototypes change, so a draw of references costs one pass over the test images.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdefect import train
from jaxdefect.contracts import References, to_fitted
from jaxdefect.evaluate import average_precision, runner
from launch import experiment, tasks


def from_boxes(
  directory: pathlib.Path,
  shots: Sequence[int],
  *,
  draws: int = 3,
  known: int = 75,
  seed: int = 0,
) -> dict[str, Any]:
  """Adds the classes that a run held back, from k boxes each, and scores all classes.

  The references are drawn at random from the images outside the test part that hold such a box.
  With them go some training images, which hold none, to say what the new classes are not: on the
  images of the new class alone a detector never sees that other surfaces resemble it.

  Args:
    directory: a finished run with ``split.kind = 'boxes_unseen'``.
    shots: numbers of boxes k.
    draws: random choices of references per k.
    known: training images among the references, the same ones in every draw.
    seed: of the draws.

  Returns:
    ``metrics``: ``new/<k>_boxes`` (mean AP at IoU 0.5 of the new classes over the draws),
    ``old/<k>_boxes`` and ``old/before`` (of the trained classes), with ``sd`` over draws,
    ``draws``, ``n`` (test images) and ``support``.

  Raises:
    ValueError: the run held no class back.
  """
  config = experiment.read_config(directory)
  made = experiment.build(config, int(config.seeds[0]), split_file=directory / 'split.json')
  new = tuple(config.split.unseen) if 'unseen' in config.split else ()
  if not new:
    raise ValueError(f'{directory} held no class back; its split.kind is {config.split.kind}')
  template = train.checkpoint.make_template(made.method, made.spec)
  trained = to_fitted(train.checkpoint.load(directory, template), made.spec.classes)
  predict = jax.jit(made.method.predict)
  test = made.split.test

  def score(fitted) -> dict[str, float]:
    batches = experiment.eval_batches(config, made.source, test, fitted.classes)
    predictions, seen = runner.predict_all(predict, fitted, batches, keys=tasks.SEEN)
    return average_precision.evaluate(predictions, seen, fitted.classes, num_resamples=0)

  def mean(report: dict, classes: Sequence[str]) -> float:
    return float(np.mean([report['metrics'][f'ap50/{c}'] for c in classes]))

  before = score(trained)
  metrics, sd = {'old/before': mean(before, trained.classes)}, {}
  support: dict[str, int] = {}
  generator = np.random.default_rng(seed)
  pool = made.split.train
  others = np.random.default_rng(seed).permutation(len(pool))[:known]
  without = [pool[place] for place in others]
  for k in shots:
    results = []
    for _ in range(draws):
      references = _draw(made, new, k, generator, without)
      fitted = made.method.adapt(jax.random.key(seed), trained, references)
      report = score(fitted)
      support = report['support']
      results.append((mean(report, new), mean(report, trained.classes)))
    for column, name in enumerate(('new', 'old')):
      values = [result[column] for result in results]
      metrics[f'{name}/{k}_boxes'] = float(np.mean(values))
      sd[f'{name}/{k}_boxes'] = float(np.std(values, ddof=1)) if draws > 1 else 0.0
  return {'metrics': metrics, 'sd': sd, 'draws': draws, 'n': len(test), 'support': support}


def _draw(
  made: experiment.Experiment,
  new: Sequence[str],
  k: int,
  generator: np.random.Generator,
  without: Sequence[int] = (),
) -> References:
  """k boxes of each new class, from the images in random order, and images without such boxes."""
  source = made.source
  copies = set(made.split.report.get('left_out', ()))  # of test or training images
  away = set(made.split.test) | {i for i, name in enumerate(source.names) if name in copies}
  wanted = {source.class_number(name): k for name in new}
  order = [i for i in generator.permutation(len(source)) if i not in away]
  chosen: dict[int, list[int]] = {int(i): [] for i in without}
  for i in order:
    for place, label in enumerate(source.annotations['box_labels'][i]):
      if wanted.get(int(label), 0):
        wanted[int(label)] -= 1
        chosen.setdefault(int(i), []).append(place)
  batches = experiment.eval_batches(made.config, source, list(chosen), source.classes)
  kept = []
  for batch in batches:
    valid = np.zeros_like(batch['box_valid'])
    for row, i in enumerate(batch['index']):
      valid[row, chosen.get(int(i), [])] = True
    label = np.array(
      [
        [new.index(source.classes[c]) if ok else 0 for c, ok in zip(*pair)]
        for pair in zip(batch['box_label'], valid)
      ],
      np.int32,
    )
    kept.append({**batch, 'box_valid': valid & batch['box_valid'], 'box_label': label})
  return References(classes=tuple(new), batches=kept)
