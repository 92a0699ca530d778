"""May the model decide alone? Bounds on the seeded set against targets, and the reason in words.

Two rates decide: of parts that are known to be defective (the seeded set, which never trained) the
share that is found, and of good parts the share that is rejected. Both have to be shown: the first
to be above its target, the second to be below. Each is shown with error rate a over all looks
together (``evaluate.confidence_sequence``). A line that is wrong in one of them would have to be
shown what is false there, so it is approved wrongly with a probability of at most a, however often
someone looks. A line that has changed is not ready, whatever it has shown before.
"""

from typing import Any, NamedTuple

from jaxdefect.evaluate import confidence_sequence
from jaxdefect.review.drift import Drift

READY, NOT_YET, DRIFTED = 'ready', 'not yet', 'drifted'


class Targets(NamedTuple):
  """What a line asks for.

  Attributes:
    detection_rate: at least this share of defective parts is found, in (0, 1).
    false_reject_rate: at most this share of good parts is rejected, in (0, 1).
    confidence: 1 - a of both statements.
  """

  detection_rate: float = 0.95
  false_reject_rate: float = 0.02
  confidence: float = 0.95


class Readiness(NamedTuple):
  """The answer.

  Attributes:
    verdict: ``'ready'``, ``'not yet'`` or ``'drifted'``.
    reason: one or two sentences.
    detection: lower bound of the detection rate.
    false_rejects: upper bound of the false-reject rate.
    more_defects: further seeded parts that would show the detection rate if it stays as it is; 0
      where it is shown, None where no number would.
    more_good: likewise of good parts.
  """

  verdict: str
  reason: str
  detection: float
  false_rejects: float
  more_defects: int | None
  more_good: int | None


def assess(
  *,
  found: int,
  defects: int,
  rejected: int,
  good: int,
  targets: Targets | None = None,
  drift: Drift | None = None,
) -> Readiness:
  """Whether the model may decide alone.

  Args:
    found: seeded defective parts that the model rejects or asks about, of
    defects: seeded defective parts, each another part.
    rejected: good parts that the model rejects, of
    good: good parts that it has not seen, each another part.
    targets: what is asked for; None asks for the defaults.
    drift: of the line since it was calibrated; None where nobody looked.

  Returns:
    The answer with its reason.

  Raises:
    ValueError: a count or a target makes no sense.

  >>> assess(found=15, defects=15, rejected=0, good=250).more_defects
  935
  >>> assess(found=88, defects=88, rejected=0, good=250).verdict
  'ready'
  """
  targets = Targets() if targets is None else targets
  for name, part, whole in (('found', found, defects), ('rejected', rejected, good)):
    if not 0 <= part <= whole:
      raise ValueError(f'{name} is {part} of {whole}; it can be 0 to {whole}.')
  for name, rate in zip(Targets._fields, targets):
    if not 0 < rate < 1:
      raise ValueError(f'targets.{name} is {rate}; a number between 0 and 1 is needed.')
  settings: dict[str, Any] = {'confidence': targets.confidence}
  kept = good - rejected
  low = confidence_sequence.lower_bound(found, defects, **settings)
  high = confidence_sequence.upper_bound(rejected, good, **settings)
  asked = {'rate': targets.detection_rate, **settings}
  allowed = {'rate': 1 - targets.false_reject_rate, **settings}
  more_defects = confidence_sequence.trials_needed(found, defects, **asked)
  more_good = confidence_sequence.trials_needed(kept, good, **allowed)
  reasons = []
  if more_defects != 0:
    best = confidence_sequence.trials_needed(found, defects, expected=1.0, **asked)
    reasons.append(
      f'{found} of {defects} seeded defects were found, which shows at least {100 * low:.1f} %, '
      f'and {100 * targets.detection_rate:g} % are asked for: '
      + _more(more_defects, best, defects - found, 'all of them are found', 'find more first')
    )
  if more_good != 0:
    best = confidence_sequence.trials_needed(kept, good, expected=1.0, **allowed)
    reasons.append(
      f'{rejected} of {good} good parts were rejected, which shows at most {100 * high:.1f} %, '
      f'and {100 * targets.false_reject_rate:g} % are allowed: '
      + _more(more_good, best, rejected, 'none of them is rejected', 'reject fewer first')
    )
  verdict = NOT_YET if reasons else READY
  if drift is not None and drift.found:
    verdict = DRIFTED
    side = 'larger' if drift.larger else 'smaller'
    reasons = [
      f'Since the part number {drift.since} the scores of the line are {side} than those that '
      'calibrated, by more than chance: look at camera, lamp and parts, and calibrate again.'
    ]
  elif not reasons:
    reasons = [
      f'At least {100 * low:.1f} % of defects are found ({found} of {defects} seeded ones) and at '
      f'most {100 * high:.1f} % of good parts rejected ({rejected} of {good}).'
    ]
  return Readiness(verdict, ' '.join(reasons), low, high, more_defects, more_good)


def _more(number: int | None, best: int | None, failed: int, condition: str, otherwise: str) -> str:
  if number is None and best is not None and not failed:
    return f'at least {best:,} more, if {condition}.'
  if number is None:
    return f'no number of further parts would show it at this rate, {otherwise}.'
  if best is None or best == number:
    return f'about {number:,} more at this rate.'
  return f'about {number:,} more at this rate, {best:,} if {condition}.'
