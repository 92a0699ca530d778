"""Views of pictures with their references: what is the same stays the same."""

import jax
import numpy as np

from jaxdefect.data import augment
from jaxdefect.data.augment_references import random_views_together

VIEW = {'crop_scale': (0.3, 1.0), 'angle': 20.0, 'elastic': 0.02}


def test_a_picture_and_its_copies_get_the_view_of_random_views():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (3, 12, 10, 3), np.uint8)
  other = generator.integers(0, 256, (3, 1, 12, 10, 3), np.uint8)
  reference = np.concatenate([np.stack([image, image], axis=1), other], axis=1)
  index = np.array([7, 2, 5])
  key = jax.random.key(0)
  views, beside = random_views_together(key, image, reference, index, **VIEW)
  expected = augment.random_views(key, image, index, **VIEW)
  assert beside.shape == (3, 3, 12, 10, 3)
  np.testing.assert_allclose(views, expected, atol=1e-3)
  for copy in range(2):
    np.testing.assert_allclose(beside[:, copy], expected, atol=1e-3)
  expected = augment.random_views(key, other[:, 0], index, **VIEW)
  np.testing.assert_allclose(beside[:, 2], expected, atol=1e-3)
  assert np.abs(np.asarray(views)[0] - image[0]).max() > 10
