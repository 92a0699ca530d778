"""The Siamese one-shot recogniser carried to PyTorch, references included, says the same.

Shape legend: N images, H x W pixels, M references.
"""

import jax
import numpy as np
import optax
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import References, to_fitted
from jaxdefect.convert import export, twins
from tests.method_batches import CLASSES, batch, spec
from tests.methods.test_siamese_one_shot import SMALL


@pytest.mark.parametrize(
  'settings',
  [{}, {'pool': True, 'margin': 1.5}, {'comparison': 'weighted_l1'}],
  ids=['distance', 'pooled', 'weighted l1'],
)
def test_agrees_after_writing(tmp_path, compared, settings):
  method = methods.load('siamese_one_shot')(optimizer=optax.sgd(0.1), **SMALL, **settings)
  key = jax.random.key(0)
  state = jax.jit(lambda key: method.init(key, spec()))(key)
  state, _ = jax.jit(method.step)(key, state, batch())
  fitted = method.adapt(key, to_fitted(state, CLASSES), References(CLASSES, [batch(6, padding=2)]))
  family, arguments, arrays = method.deploy(fitted)
  export.write(tmp_path / 'a', family, {**arguments, 'image_size': [16, 16]}, arrays)
  module = twins.load(tmp_path / 'a')
  batches = [batch(4, first=9), batch(3, padding=1, first=20)]
  result = compared(jax.jit(lambda b: method.predict(fitted, b)), module, batches)
  assert result.n == result.equal == 7
  assert result.largest < 1e-4


def test_unknown_comparison_is_refused():
  arguments = {
    **{'channels': [2], 'widths': [3], 'pool': False, 'flattened': 8, 'margin': 2.0},
    **{'classes': ['a', 'b'], 'mean': [0.5] * 3, 'std': [0.5] * 3, 'comparison': 'cosine'},
    'memory': {'references': ('float32', [2, 3]), 'reference_labels': ('int64', [2])},
  }
  with pytest.raises(ValueError, match="must be 'distance' or 'weighted_l1', got 'cosine'"):
    twins.make('siamese_one_shot', arguments)
  module = twins.make('siamese_one_shot', {**arguments, 'comparison': 'distance'})
  module.references.copy_(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
  # At distance 0 and 2, halved: margin^2 / 4 = 1, less 0 and 1.
  similarity = module.similarity(torch.zeros(1, 3))
  np.testing.assert_allclose(similarity, [[1.0, 0.0]])
