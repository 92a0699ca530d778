"""The search of the twins finds what ours finds, however a bank is cut."""

import numpy as np
import pytest
import torch

from jaxdefect import ops
from jaxdefect.convert.twins import nearest_neighbors as search


def vectors(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('count', [1, 4])
@pytest.mark.parametrize('held', [2**20, 7 * 9, 7 * 2, 1])
def test_neighbours_are_ours(count, held, monkeypatch):
  monkeypatch.setattr(search, 'DISTANCES_HELD', held)  # parts of 9, of 2 (fewer than k), of 1
  queries, bank = vectors(3, 7, 5), vectors(31, 5, seed=1)
  queries[1, 2] = bank[20]
  bank[8] = bank[20]  # a tie
  distances, places = search.nearest_neighbors(
    torch.from_numpy(queries), torch.from_numpy(bank), count
  )
  ours, indices = ops.nearest_neighbors(queries.reshape(-1, 5), bank, k=count)
  np.testing.assert_allclose(distances.reshape(-1, count), ours, rtol=1e-6, atol=0)
  assert distances[1, 2, 0] == 0
  # Either of two that tie may come first.
  places, indices = (np.where(one == 20, 8, one) for one in (places, np.asarray(indices)))
  np.testing.assert_array_equal(places.reshape(-1, count), indices)


def test_every_image_may_have_its_own_bank():
  queries, banks = vectors(3, 4, 5), vectors(3, 10, 5, seed=1)
  parts = (torch.from_numpy(banks[:, first : first + 3]) for first in range(0, 10, 3))
  places = search.nearest_of_parts(torch.from_numpy(queries), parts, 2)
  for own, bank, found in zip(queries, banks, places):
    _, expected = ops.nearest_neighbors(own, bank, k=2)
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))
