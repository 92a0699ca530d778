"""Who decides about a part, against a plain reference; an anomaly score never rejects."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import ops
from jaxdefect.contracts import RULES, VERDICTS


def reference(scores, anomaly, confirmed, threshold, good, least):
  """The rule in words, one part at a time."""
  named = int(np.argmax(scores))
  young = [k for k in range(len(scores)) if k != good and confirmed[k] < least]
  if named != good:
    return ('review', 'few samples') if named in young else ('reject', 'supervised')
  if young and anomaly > threshold:
    return 'review', 'anomaly'
  return 'ok', 'supervised'


def test_every_case_by_hand():
  for counts in itertools.product((0, 29, 30, 31), repeat=2):
    for named, score in itertools.product(range(3), (0.4, 0.5, 0.6)):
      scores = np.eye(3)[named]
      confirmed = np.array([0, *counts])
      verdict, rule = ops.route(
        scores[None], np.array([score]), confirmed=confirmed, threshold=0.5, good=0
      )
      said = VERDICTS[int(verdict[0])], RULES[int(rule[0])]
      assert said == reference(scores, score, confirmed, 0.5, 0, 30)


@pytest.mark.parametrize('seed', range(20))
def test_an_anomaly_score_never_rejects(seed):
  least = 1 + 3 * seed
  generator = np.random.default_rng(seed)
  scores = generator.normal(size=(20, 4)).astype(np.float32)
  confirmed = generator.integers(0, 70, 4)
  good = int(generator.integers(4))
  found = {}
  for name, anomaly in (('calm', np.full(20, -1e9)), ('loud', np.full(20, 1e9))):
    verdict, rule = ops.route(
      scores, anomaly, confirmed=confirmed, threshold=0.0, good=good, min_confirmed=least
    )
    found[name] = [(VERDICTS[v], RULES[r]) for v, r in zip(verdict.tolist(), rule.tolist())]
    for row, said in enumerate(found[name]):
      assert said == reference(scores[row], anomaly[row], confirmed, 0.0, good, least)
  for calm, loud in zip(found['calm'], found['loud']):
    assert (calm[0] == 'reject') == (loud[0] == 'reject')
    if calm != loud:
      assert (calm[0], *loud) == ('ok', 'review', 'anomaly')


def test_jit_matches_eager():
  scores = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3)))
  arguments = scores, scores[:, 0]
  settings_ = {'confirmed': jnp.array([4, 40, 7]), 'threshold': 0.1}
  compiled = jax.jit(ops.route, static_argnames=('good', 'min_confirmed'))
  for one, other in zip(
    ops.route(*arguments, good=1, **settings_), compiled(*arguments, good=1, **settings_)
  ):
    assert one.dtype == jnp.int32
    np.testing.assert_array_equal(one, other)


def test_rejects_bad_shape():
  with pytest.raises(AssertionError):
    ops.route(jnp.zeros((3, 2)), jnp.zeros(4), confirmed=jnp.zeros(2), threshold=0.0, good=0)
  with pytest.raises(AssertionError):
    ops.route(jnp.zeros((3, 2)), jnp.zeros(3), confirmed=jnp.zeros(3), threshold=0.0, good=0)
