"""Which rule decides about a part: a supervised head, or an anomaly score that may only ask.

Shape legend: N parts, K classes.
"""

import chex
import jax
import jax.numpy as jnp

from jaxdefect.contracts.predictions import RULES, VERDICTS

_OK, _REVIEW, _REJECT = (VERDICTS.index(name) for name in ('ok', 'review', 'reject'))
_HEAD, _ANOMALY, _FEW = (RULES.index(name) for name in ('supervised', 'anomaly', 'few samples'))


def route(
  class_scores: jax.Array,
  anomaly_scores: jax.Array,
  *,
  confirmed: jax.Array,
  threshold: jax.Array | float,
  good: int,
  min_confirmed: int = 30,
) -> tuple[jax.Array, jax.Array]:
  r"""Decides by failure mode who decides.

  The head names the class c of the largest score. With :math:`n_c` confirmed samples of it,

  - c is a failure mode with :math:`n_c \ge` ``min_confirmed``: **reject**, rule 'supervised';
  - c is one with fewer: **review**, rule 'few samples';
  - c is good, every mode has enough samples: **ok**, rule 'supervised'; the anomaly score is not
    asked;
  - c is good, some mode has too few: **review** where the anomaly score is above its threshold,
    rule 'anomaly', else **ok**, rule 'supervised'.

  So an anomaly score can send a part to a person, and never rejects one: PatchCore knows what good
  parts look like and not what a defect is, and alarms at every harmless change of them.

  Args:
    class_scores: [N, K], larger means more like the class; ties go to the lower class.
    anomaly_scores: [N], larger means more anomalous.
    confirmed: [K] integers, confirmed samples of each class; that of the good class is not read.
    threshold: of the anomaly scores; what is above it is flagged.
    good: place of the good class.
    min_confirmed: samples of a mode from which on the head decides about it alone.

  Returns:
    ``(verdict, rule)``, [N] int32 each, counting in ``contracts.VERDICTS`` and ``RULES``.

  The practitioner's post, 'Below 30 samples'.

  >>> scores = jnp.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
  >>> settings = {'confirmed': jnp.array([500, 40, 7]), 'threshold': 0.5, 'good': 0}
  >>> verdict, rule = route(scores, jnp.array([0.1, 0.9, 0.9, 0.9]), **settings)
  >>> [VERDICTS[i] for i in verdict], [RULES[i] for i in rule]  # doctest: +NORMALIZE_WHITESPACE
  (['ok', 'reject', 'review', 'review'], ['supervised', 'supervised', 'few samples', 'anomaly'])
  """
  class_scores, anomaly_scores = jnp.asarray(class_scores), jnp.asarray(anomaly_scores)
  confirmed = jnp.asarray(confirmed)
  chex.assert_rank([class_scores, anomaly_scores, confirmed], [2, 1, 1])
  chex.assert_equal_shape_prefix([class_scores, anomaly_scores], 1)
  chex.assert_shape(confirmed, (class_scores.shape[1],))
  modes = jnp.arange(class_scores.shape[1]) != good
  enough = ~modes | (confirmed >= min_confirmed)

  named = class_scores.argmax(axis=1)
  defective = modes[named]
  asked = ~defective & ~enough.all() & (anomaly_scores > threshold)
  verdict = jnp.where(defective, jnp.where(enough[named], _REJECT, _REVIEW), _OK)
  rule = jnp.where(defective & ~enough[named], _FEW, _HEAD)
  verdict, rule = jnp.where(asked, _REVIEW, verdict), jnp.where(asked, _ANOMALY, rule)
  return verdict.astype(jnp.int32), rule.astype(jnp.int32)
