r"""AUROC of a model that is trained on all labelled images, from models that were trained on most.

Shape legend: n images.

- ``leave_one_out``: each image is scored by a model without it, and all scores are ranked together.
  So scores of different models are compared, and the model without a positive leans to the
  negatives and the other way round: biased low, grossly so for a model that has learned nothing
  (Airola et al., Computational Statistics and Data Analysis 55 (2011) 1828-1844; Forman and Scholz,
  SIGKDD Explorations 12 (2010) 49-57).
- ``leave_pair_out``: each pair is compared by a model without the two; nearly unbiased (Airola).
- ``k_fold``: pairs within a fold, averaged over folds and repetitions; ``k_fold_pooled`` ranks the
  scores of all folds together, as ``leave_one_out`` does.

The interval is to hold the AUROC of the very model that was trained on all images. What other test
images would show is DeLong's variance, with the models fixed (LeDell et al., Electronic Journal of
Statistics 9 (2015) 1583-1607); alone it is too narrow, because the images train the models too.
That part is measured by refits, or assumed to be as large. How often the interval holds is in
``docs/results.md``, table E2.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdefect.data import folds as divisions
from jaxdefect.data.folds import Fold
from jaxdefect.data.samples import Samples, is_positive
from jaxdefect.evaluate import comparisons, refits
from jaxdefect.evaluate.comparisons import Comparisons

SCHEMES = ('leave_one_out', 'leave_pair_out', 'k_fold', 'k_fold_pooled')
# Their order by bias (table E2): the first that a report has is its figure to tell.
LEAST_BIASED_FIRST = ('leave_pair_out', 'k_fold', 'leave_one_out', 'k_fold_pooled')
TRAINING = ('measured', 'assumed')

# (folds) -> the scores of each fold's test images by a model that saw its training images alone.
Scorer = Callable[[Sequence[Fold]], Sequence[np.ndarray]]


def one_by_one(fit_and_score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Scorer:
  """A ``Scorer`` from a function that trains and scores a single fold.

  Args:
    fit_and_score: (train, test) -> scores of ``test``, larger for positives; both are places in
      the samples.

  Returns:
    The same for many folds, one after another.
  """
  return lambda folds: [fit_and_score(fold.train, fold.test) for fold in folds]


def evaluate(
  score: Scorer,
  given: Samples,
  *,
  positive: str,
  schemes: Sequence[str] = SCHEMES,
  k: int = 5,
  repeats: int = 20,
  pair_limit: int | None = None,
  training: str = 'measured',
  seed: int = 0,
  confidence: float = 0.95,
  num_resamples: int = 1000,
) -> dict[str, Any]:
  """Cross-validates; everything in the answer can be written as JSON.

  Args:
    score: trains and scores many models in one call; there are at most three calls.
    given: the labelled images with their groups, which stay whole.
    positive: name of the positive class; all others are negatives.
    schemes: of ``SCHEMES``.
    k: folds of ``k_fold``.
    repeats: how many times they are drawn.
    pair_limit: at most so many models of ``leave_pair_out``, drawn at random; None takes all.
    training: how the variance that the training images add is found. ``'measured'`` trains without
      every two groups, G (G - 1) / 2 models, of which those of ``leave_pair_out`` are a part;
      ``'assumed'`` trains no further model and doubles DeLong's variance (about what Nadeau and
      Bengio, Machine Learning 52 (2003) 239-281, find for figures whose test images train too).
    seed: of the folds, the draw of the pairs and the bootstrap.
    confidence: coverage of the intervals, in (0, 1).
    num_resamples: bootstrap resamples of the groups.

  Returns:
    A dict with

    - ``metrics``: ``auroc/<scheme>``; ``intervals``: for the model trained on all images, on the
      logit scale; ``interval_kinds``: ``'delong and refits'``, ``'delong, doubled'``, or
      ``'guaranteed'`` where no pair is lost; ``confidence``.
    - ``fixed_model_intervals``: what DeLong's variance says alone, and ``bootstrap_intervals``:
      percentiles over resampled groups; both narrower, for models that are given.
    - ``stability``, by scheme: ``split_sd``, the standard deviation that another draw of the folds
      gives to one repetition, 0 where nothing is drawn: what the figure owes to how the images
      happened to be split; ``largest_step``, by how much it moves at most when one group is struck
      off: what it owes to a single image.
    - ``per_repeat``: the AUROC of each repetition, where folds are drawn.
    - ``n``, ``groups`` (how many), ``support`` (class -> images), ``classes``, ``positive``,
      ``models`` (how many, per scheme), ``pairs`` (compared, per scheme), ``training_sd`` (the
      root of what was measured).

  Raises:
    ValueError: there is no such scheme, class or ``training``, ``pair_limit`` is given with
      ``'measured'``, or as the folds of ``data.folds``.
  """
  # All folds first: what cannot be divided is said before anything is trained.
  settings: dict[str, Any] = {'k': k, 'repeats': repeats, 'pair_limit': pair_limit}
  planned = plan(
    given, positive=positive, schemes=schemes, training=training, seed=seed, **settings
  )
  ones, twos, drawn = planned
  marks, measured = is_positive(given, positive), training == 'measured'
  support = np.bincount(given.labels, minlength=len(given.classes))
  report: dict[str, Any] = {
    **{name: {} for name in ('metrics', 'intervals', 'interval_kinds')},
    **{name: {} for name in ('fixed_model_intervals', 'bootstrap_intervals')},
    **{name: {} for name in ('stability', 'per_repeat', 'models', 'pairs')},
    'confidence': confidence,
    'n': len(given.names),
    'groups': len(np.unique(given.groups)),
    'classes': list(given.classes),
    'support': {name: int(count) for name, count in zip(given.classes, support)},
    'positive': positive,
  }
  found: dict[str, tuple[list[Comparisons], int]] = {}
  added = None
  scores_of_ones, scores_of_twos = score(ones), score(twos)
  if measured:
    added = refits.training_variance(
      ones, scores_of_ones, twos, scores_of_twos, marks, given.groups
    )
    report['training_sd'] = math.sqrt(added)
  if 'leave_one_out' in schemes:
    found['leave_one_out'] = [comparisons.pooled(ones, scores_of_ones, marks)], len(ones)
  if 'leave_pair_out' in schemes:
    table = comparisons.within(twos, scores_of_twos, marks, apart=given.groups)
    crossing = sum(divisions.crosses(fold, marks, given.groups) for fold in twos)
    found['leave_pair_out'] = [table], crossing
  if drawn:
    scores = score([fold for folds in drawn for fold in folds])
    per_repeat = [(folds, scores[k * r : k * (r + 1)]) for r, folds in enumerate(drawn)]
    for scheme, table_of in (('k_fold', comparisons.within), ('k_fold_pooled', comparisons.pooled)):
      if scheme in schemes:
        found[scheme] = [table_of(*one, marks) for one in per_repeat], k * repeats

  for scheme, (tables, models) in found.items():
    table, name = comparisons.average(tables), f'auroc/{scheme}'
    settings = {'confidence': confidence}
    full = comparisons.with_interval(table, marks, given.groups, added=added, **settings)
    fixed = comparisons.with_interval(table, marks, given.groups, **settings)
    resampled = comparisons.bootstrap(
      table, marks, given.groups, num_resamples=num_resamples, seed=seed, **settings
    )
    kind = 'delong, doubled' if added is None else 'delong and refits'
    report['metrics'][name] = full.value
    report['intervals'][name] = [full.low, full.high]
    report['interval_kinds'][name] = kind if 0 < full.value < 1 else 'guaranteed'
    report['fixed_model_intervals'][name] = [fixed.low, fixed.high]
    report['bootstrap_intervals'][name] = list(resampled)
    split_sd = _sampling_sd(table, marks, given.groups) if scheme == 'leave_pair_out' else 0.0
    if len(tables) > 1:
      report['per_repeat'][name] = [one.auroc for one in tables]
      split_sd = float(np.std(report['per_repeat'][name], ddof=1))
    step = comparisons.largest_step(table, marks, given.groups)
    report['stability'][scheme] = {'split_sd': split_sd, 'largest_step': step}
    report['models'][scheme] = models
    report['pairs'][scheme] = int((table.weight > 0).sum())
  return report


class Plan(NamedTuple):
  """The folds of an evaluation, one model each.

  Attributes:
    ones: without one group.
    twos: without two.
    drawn: k folds, ``repeats`` times.
  """

  ones: list[Fold]
  twos: list[Fold]
  drawn: list[list[Fold]]


def plan(
  given: Samples,
  *,
  positive: str,
  schemes: Sequence[str] = SCHEMES,
  k: int = 5,
  repeats: int = 20,
  pair_limit: int | None = None,
  training: str = 'measured',
  seed: int = 0,
) -> Plan:
  """The folds that ``evaluate`` will ask for, and all that it may refuse; trains nothing.

  Args:
    given: as the others of ``evaluate``.
    positive: likewise.
    schemes: likewise.
    k: likewise.
    repeats: likewise.
    pair_limit: likewise.
    training: likewise.
    seed: likewise.

  Returns:
    The folds.

  Raises:
    ValueError: as ``evaluate``.
  """
  _check(given, positive, schemes, training, pair_limit)
  measured = training == 'measured'
  ones = divisions.leave_one_out(given) if measured or 'leave_one_out' in schemes else []
  twos: list[Fold] = divisions.leave_two_out(given) if measured else []
  if not measured and 'leave_pair_out' in schemes:
    twos = divisions.leave_pair_out(given, positive=positive, limit=pair_limit, seed=seed)
  drawn: list[list[Fold]] = []
  if {'k_fold', 'k_fold_pooled'} & set(schemes):
    drawn = divisions.k_fold(given, k=k, seed=seed, repeats=repeats)
  return Plan(ones, twos, drawn)


def _check(
  given: Samples, positive: str, schemes: Sequence[str], training: str, pair_limit: int | None
) -> None:
  for argument, values, allowed in (
    ('schemes', schemes, SCHEMES),
    ('training', (training,), TRAINING),
  ):
    for value in values:
      if value not in allowed:
        raise ValueError(f'{argument} has {value!r}; there are {", ".join(allowed)}.')
  if training == 'measured' and pair_limit is not None:
    raise ValueError(
      "pair_limit draws some pairs, but training='measured' needs the models of all of them; use "
      "'assumed'."
    )
  is_positive(given, positive)


def _sampling_sd(table: Comparisons, positive: np.ndarray, groups: np.ndarray) -> float:
  """What the draw of a part of the pairs adds: binomial, for a share of a finite number."""
  compared = int((table.weight > 0).sum())
  all_pairs = int((groups[positive][:, None] != groups[~positive]).sum())
  value = table.auroc
  return math.sqrt(max(value * (1 - value) / compared * (1 - compared / all_pairs), 0.0))
