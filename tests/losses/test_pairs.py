"""Pairs of a batch against loops, PyTorch's formulation, and numeric gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxdefect import losses

LABELS = np.array([0, 1, 0, 2, 1, 0])


def embeddings(n=6, seed=0, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=(n, 3)).astype(dtype)


def by_loops(same, different, labels, valid):
  """[N] values and weights: for each image, its partners one after the other."""
  values, weights = np.zeros(len(labels)), np.zeros(len(labels))
  for i in np.flatnonzero(valid):
    partners = [j for j in np.flatnonzero(valid) if j != i]
    for costs in (
      [same[i, j] for j in partners if labels[j] == labels[i]],
      [different[i, j] for j in partners if labels[j] != labels[i]],
    ):
      if costs:
        values[i] += np.mean(costs) / 2
        weights[i] += 0.5
  return values, weights


@pytest.mark.parametrize(
  ('labels', 'valid'),
  [
    (LABELS, [1, 1, 1, 1, 1, 1]),
    (LABELS, [1, 1, 1, 0, 0, 1]),
    (LABELS * 0, [1, 1, 1, 1, 1, 1]),  # no two classes
    (np.arange(6), [1, 1, 1, 1, 1, 1]),  # no class twice
    (LABELS, [0, 0, 0, 1, 0, 0]),  # no pair
    (LABELS, [0, 0, 0, 0, 0, 0]),
  ],
)
def test_mean_by_loops(labels, valid):
  valid = np.array(valid, bool)
  costs = np.random.default_rng(1).uniform(size=(2, 6, 6)).astype(np.float32)
  pairs = losses.pairs_of_batch(embeddings(), jnp.asarray(labels), valid=jnp.asarray(valid))
  found = losses.mean_over_pairs(pairs, same=costs[0], different=costs[1])
  for mine, expected in zip(found, by_loops(*costs, labels, valid), strict=True):
    np.testing.assert_allclose(mine, expected, rtol=1e-6)


def test_mean_is_that_of_drawn_pairs():
  """An image, a coin, a partner: what the authors draw, on average over many draws."""
  random = np.random.default_rng(0)
  costs = random.uniform(size=(2, 6, 6)).astype(np.float32)
  labels = np.array([0, 1, 0, 1, 1, 0])
  drawn = []
  for _ in range(20_000):
    i, kind = random.integers(6), random.integers(2)
    partners = [j for j in range(6) if j != i and (labels[j] == labels[i]) == (kind == 0)]
    drawn.append(costs[kind, i, random.choice(partners)])
  pairs = losses.pairs_of_batch(embeddings(), jnp.asarray(labels))
  values, weights = losses.mean_over_pairs(pairs, same=costs[0], different=costs[1])
  error = np.std(drawn) / np.sqrt(len(drawn))
  assert abs(values.sum() / weights.sum() - np.mean(drawn)) < 4 * error


def contrastive(x, valid=None, labels=LABELS):
  pairs = losses.pairs_of_batch(x, jnp.asarray(labels), valid=valid)
  squared = losses.squared_distances(pairs.here, pairs.everywhere)
  same, different = losses.contrastive_costs(squared, margin=2.0)
  return losses.mean_over_pairs(pairs, same=same, different=different)[0].sum()


def cross_entropy(x, valid=None, labels=LABELS):
  pairs = losses.pairs_of_batch(x, jnp.asarray(labels), valid=valid)
  kernel, bias = -jnp.arange(1.0, 4.0)[:, None].astype(x.dtype), jnp.ones(1, x.dtype)
  logits = losses.weighted_l1_logits(pairs.here, pairs.everywhere, kernel=kernel, bias=bias)
  same, different = (
    losses.sigmoid_cross_entropy(logits, jnp.full_like(logits, target)) for target in (1, 0)
  )
  return losses.mean_over_pairs(pairs, same=same, different=different)[0].sum()


@pytest.mark.parametrize('loss', [contrastive, cross_entropy])
def test_padding_is_invisible_even_where_it_is_not_a_number(loss):
  x = embeddings()
  padded = np.concatenate([x, np.full((2, 3), np.nan, np.float32)])
  labels, valid = np.append(LABELS, [0, 1]), jnp.arange(8) < 6
  value, gradient = jax.value_and_grad(loss)(jnp.asarray(padded), valid, labels)
  expected, slope = jax.value_and_grad(loss)(jnp.asarray(x))
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient[:6], slope, rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(gradient[6:], 0)


@pytest.mark.parametrize('loss', [contrastive, cross_entropy])
def test_gradient_matches_numeric(loss):
  with jax.enable_x64(True):
    check_grads(loss, (jnp.asarray(embeddings(dtype=np.float64)),), order=1, modes=['rev'])


def test_gradient_is_finite_where_images_are_equal():
  x = jnp.asarray(np.repeat(embeddings(1), 6, axis=0))
  assert np.isfinite(jax.grad(contrastive)(x)).all()


def test_comparisons_match_pytorch():
  torch = pytest.importorskip('torch')
  a, b = embeddings(4), embeddings(5, seed=1)
  layer = torch.nn.Linear(3, 1)
  ours = losses.weighted_l1_logits(
    a, b, kernel=layer.weight.detach().numpy().T, bias=layer.bias.detach().numpy()
  )
  apart = (torch.from_numpy(a)[:, None] - torch.from_numpy(b)).abs()
  np.testing.assert_allclose(ours, layer(apart)[..., 0].detach().numpy(), rtol=1e-5, atol=1e-6)
  distance = torch.cdist(torch.from_numpy(a), torch.from_numpy(b))
  same, different = losses.contrastive_costs(losses.squared_distances(a, b), margin=2.5)
  np.testing.assert_allclose(same, distance.square(), rtol=1e-4)
  np.testing.assert_allclose(different, (2.5 - distance).clamp(min=0).square(), atol=1e-5)


def test_half_types_are_raised():
  x = jnp.asarray(embeddings(), jnp.bfloat16)
  assert losses.squared_distances(x, x).dtype == jnp.float32
  kernel, bias = jnp.ones((3, 1)), jnp.ones(1)
  assert losses.weighted_l1_logits(x, x, kernel=kernel, bias=bias).dtype == jnp.float32


def test_rejects_a_margin_of_zero():
  with pytest.raises(ValueError, match=r'margin is 0\.0; it must be larger than 0'):
    losses.contrastive_costs(jnp.zeros((2, 2)), margin=0.0)
