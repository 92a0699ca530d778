"""The Dice loss by hand, and in its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import losses


def drawn():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(3, 4, 5)).astype(np.float32)
  return logits, generator.random((3, 4, 5)) < 0.4


@pytest.mark.parametrize('smooth', [1.0, 0.25])
def test_value_by_hand(smooth):
  logits, mask = drawn()
  got = losses.dice_loss(jnp.asarray(logits), jnp.asarray(mask), smooth=smooth)
  for value, x, t in zip(got, logits, mask):
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    share = (2 * p[t].sum() + smooth) / (t.sum() + (p * p).sum() + smooth)
    assert value == pytest.approx(1 - share, abs=1e-6)


def test_a_right_mask_costs_nothing_marked_or_not():
  mask = jnp.stack([jnp.zeros((2, 3), bool), jnp.eye(2, 3, dtype=bool)])
  np.testing.assert_allclose(losses.dice_loss(jnp.where(mask, 99.0, -99.0), mask), 0, atol=1e-6)
  wrong = losses.dice_loss(jnp.where(mask, -99.0, 99.0), mask)
  np.testing.assert_allclose(wrong, [1 - 1 / 7, 1 - 1 / 7], atol=1e-6)


def test_gradient_matches_numeric():
  logits, mask = drawn()
  with jax.enable_x64(True):
    x = jnp.asarray(logits, jnp.float64)
    slope = jax.grad(lambda x: losses.dice_loss(x, jnp.asarray(mask)).sum())(x)
    for place in ((0, 1, 2), (2, 3, 4)):
      sides = [losses.dice_loss(x.at[place].add(e), jnp.asarray(mask)).sum() for e in (1e-5, -1e-5)]
      expected = float(sides[0] - sides[1]) / 2e-5
      assert float(slope[place]) == pytest.approx(expected, abs=1e-8)


def test_rejects_smooth():
  logits, mask = drawn()
  with pytest.raises(ValueError, match='smooth is 0'):
    losses.dice_loss(jnp.asarray(logits), jnp.asarray(mask), smooth=0)
