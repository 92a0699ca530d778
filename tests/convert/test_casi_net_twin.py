"""CASI-Net carried to PyTorch says the same, and shows the Grad-CAM of autograd.

Shape legend: N images, H x W pixels.
"""

import jax
import numpy as np
import pytest
import torch

from jaxdefect import methods
from jaxdefect.contracts import to_fitted
from jaxdefect.convert import export, twins
from tests.method_batches import CLASSES, batch, spec
from tests.methods.test_casi_net import SMALL


def fitted_with(**settings):
  """The method and what it knows, with random statistics."""
  method = methods.load('casi_net')(**{**SMALL, **settings})
  shapes = jax.eval_shape(lambda key: method.init(key, spec()), jax.random.key(0))
  random = np.random.default_rng(0)
  state = jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.asarray(
      random.uniform(0.5, 1.5, leaf.shape)
      if getattr(path[-1], 'key', '') in ('var', 'scale')
      else 0.5 * random.normal(size=leaf.shape),
      leaf.dtype,
    ),
    shapes,
  )
  return method, to_fitted(state, CLASSES)


@pytest.mark.parametrize(
  'settings',
  [{'channels': (6, 8), 'blocks': 2}, {'attention': False}, {'interaction': False}],
  ids=['whole', 'without attention', 'without interaction'],
)
def test_agrees_after_writing(tmp_path, compared, settings):
  method, fitted = fitted_with(**settings)
  family, arguments, arrays = method.deploy(fitted)
  export.write(tmp_path / 'a', family, {**arguments, 'image_size': [16, 16]}, arrays)
  module = twins.load(tmp_path / 'a')
  batches = [batch(4, first=9), batch(3, padding=1, first=20)]
  result = compared(jax.jit(lambda b: method.predict(fitted, b)), module, batches)
  assert result.n == result.equal == 7
  assert result.largest < 1e-4


def test_evidence_is_the_gradient_of_the_lead():
  method, fitted = fitted_with()
  module = export.to_torch(*method.deploy(fitted))
  images = torch.from_numpy(batch(4, first=9)['image'])
  maps = []
  module.fc.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
  module.interaction.register_forward_hook(
    lambda _, inputs, output: maps.append(output.requires_grad_())
  )
  logits, _, evidence = module(images)
  named = torch.nn.functional.one_hot(logits.argmax(1), 3)
  lead = (logits * (named - (1 - named) / 2)).sum()
  (slope,) = torch.autograd.grad(lead, maps[0])
  expected = (slope.mean((2, 3), keepdim=True) * maps[0]).sum(1).relu()
  torch.testing.assert_close(evidence, expected)
  assert evidence.max() > 0
