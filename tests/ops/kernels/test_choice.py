"""Which formulation runs: by name, by platform, and by shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from jaxdefect import ops

TRITON = 'xla.gpu.triton'  # the call that XLA compiles for the GPU


def _deform(implementation, *, channels=16, groups=1):
  arrays = [
    jnp.ones(shape)
    for shape in ((1, 4, 5, channels), (1, 4, 5, 18), (3, 3, channels // groups, 16))
  ]
  function = functools.partial(ops.deform_conv2d, padding=1, implementation=implementation)
  return function, arrays


def _nearest(implementation, *, k=1):
  arrays = [jnp.ones((5, 8)), jnp.ones((7, 8))]
  return functools.partial(ops.nearest_neighbors, k=k, implementation=implementation), arrays


def _lowered(function, arrays, platform):
  """The program for a platform that needs not be here, as text."""
  # Newer JAX asks which GPU it is for.
  device = AbstractDevice('NVIDIA H200', num_cores=None, platform='gpu')
  with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
    traced = jax.jit(lambda *arrays: function(*arrays)).trace(*arrays)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('make', [_deform, _nearest])
def test_the_platform_decides(make):
  for implementation, platform, kernel in (
    ('pallas', 'cuda', True),
    ('pallas', 'cpu', False),
    ('xla', 'cuda', False),
    (None, 'cuda', False),
  ):
    function, arrays = make(implementation)
    assert (TRITON in _lowered(function, arrays, platform)) is kernel, (implementation, platform)


def test_gradients_are_kernels_too():
  function, arrays = _deform('pallas')
  gradients = jax.grad(lambda *arrays: function(*arrays).sum(), argnums=(0, 1, 2))
  # The product is linear: its value is not needed.
  assert _lowered(gradients, arrays, 'cuda').count(TRITON) == 2


@pytest.mark.parametrize(
  ('function', 'arrays'),
  [
    _deform('pallas', channels=8),
    _deform('pallas', channels=32, groups=2),
    _nearest('pallas', k=2),
  ],
)
def test_shapes_that_do_not_suit_take_the_twin(function, arrays):
  assert TRITON not in _lowered(function, arrays, 'cuda')


@pytest.mark.parametrize('make', [_deform, _nearest])
def test_without_a_gpu_it_is_the_twin(make):
  results = [make(name)[0](*make(name)[1]) for name in ('pallas', 'xla', None)]
  for result in results[1:]:
    for ours, theirs in zip(jax.tree.leaves(results[0]), jax.tree.leaves(result)):
      np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('make', [_deform, _nearest])
def test_rejects_an_unknown_name(make):
  function, arrays = make('cuda')
  with pytest.raises(ValueError, match=r"implementation must be None or one of .*'cuda'"):
    function(*arrays)
