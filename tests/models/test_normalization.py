"""BatchNorm and GroupNorm equal PyTorch's; padding and the number of devices change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect.models import BatchNorm, GroupNorm

X = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 5, 6)).astype(np.float32)


def fresh(dtype=np.float32):
  random = np.random.default_rng(1)
  params = {'scale': random.normal(size=6), 'bias': random.normal(size=6)}
  statistics = {'mean': random.normal(size=6), 'var': random.uniform(0.5, 2.0, 6)}
  variables = {'params': params, 'batch_stats': statistics}
  return jax.tree.map(lambda a: jnp.asarray(a, dtype), variables)


def normalize(variables, x, *, train=True, valid=None, axis_name=None, dtype=jnp.float32):
  module = BatchNorm(axis_name=axis_name, dtype=dtype)
  return module.apply(
    variables, x, use_running_average=not train, valid=valid, mutable=['batch_stats']
  )


@pytest.mark.parametrize('train', [True, False])
def test_matches_torch(train):
  torch = pytest.importorskip('torch')
  variables = fresh()
  module = torch.nn.BatchNorm2d(6).train(train)
  params, statistics = variables['params'], variables['batch_stats']
  with torch.no_grad():
    module.weight.copy_(torch.tensor(np.array(params['scale'])))
    module.bias.copy_(torch.tensor(np.array(params['bias'])))
    module.running_mean.copy_(torch.tensor(np.array(statistics['mean'])))
    module.running_var.copy_(torch.tensor(np.array(statistics['var'])))
  theirs_in = torch.tensor(X).permute(0, 3, 1, 2).requires_grad_()
  theirs = module(theirs_in)
  (theirs**3).sum().backward()

  def loss(params, x):
    y, updated = normalize({**variables, 'params': params}, x, train=train)
    return jnp.sum(y**3), (y, updated)

  gradients, (ours, updated) = jax.grad(loss, (0, 1), has_aux=True)(params, jnp.asarray(X))

  def close(a, b):
    return np.testing.assert_allclose(a, b.detach().numpy(), rtol=2e-4, atol=2e-4)

  close(ours, theirs.permute(0, 2, 3, 1))
  close(gradients[0]['scale'], module.weight.grad)
  close(gradients[0]['bias'], module.bias.grad)
  close(gradients[1], theirs_in.grad.permute(0, 2, 3, 1))
  close(updated['batch_stats']['mean'], module.running_mean)
  close(updated['batch_stats']['var'], module.running_var)


def test_padding_is_invisible():
  padded = jnp.concatenate([jnp.asarray(X), jnp.full((2, *X.shape[1:]), jnp.nan)])
  valid = jnp.array([True] * 4 + [False] * 2)
  expected, expected_state = normalize(fresh(), jnp.asarray(X))
  actual, state = normalize(fresh(), padded, valid=valid)
  np.testing.assert_allclose(actual[:4], expected, rtol=1e-6, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, expected_state)


def test_batch_of_padding_changes_no_statistics():
  variables = fresh()
  y, state = normalize(variables, jnp.asarray(X), valid=jnp.zeros(4, bool))
  jax.tree.map(np.testing.assert_array_equal, state['batch_stats'], variables['batch_stats'])
  assert np.isfinite(y).all()


def test_far_from_zero_keeps_the_variance():
  # Once the running mean is near, one pass in float32 loses nothing.
  variables = fresh()
  variables['batch_stats']['mean'] = jnp.full(6, 1e4)
  _, state = normalize(variables, jnp.asarray(X + 1e4))
  expected = 0.9 * variables['batch_stats']['var'] + 0.1 * np.var(X, axis=(0, 1, 2), ddof=1)
  np.testing.assert_allclose(state['batch_stats']['var'], expected, rtol=1e-3)


def test_half_input_has_float32_statistics():
  y, state = normalize(fresh(), jnp.asarray(X, jnp.bfloat16), dtype=jnp.bfloat16)
  assert y.dtype == jnp.bfloat16
  _, wide = normalize(fresh(), jnp.asarray(X, jnp.bfloat16).astype(jnp.float32))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wide)


def test_two_devices_match_one():
  with jax.enable_x64(True):
    x = jnp.asarray(X, jnp.float64)
    valid = jnp.array([True, True, True, False])  # devices with two and one valid images

    def loss(params, x, valid, axis_name):
      variables = {**fresh(np.float64), 'params': params}
      y, state = normalize(variables, x, valid=valid, axis_name=axis_name, dtype=jnp.float64)
      return jnp.sum(jnp.where(valid[:, None, None, None], y, 0) ** 3), state

    params = fresh(np.float64)['params']
    gradient = jax.grad(loss, (0, 1), has_aux=True)
    (expected, expected_x), expected_state = gradient(params, x, valid, None)

    def device(x, valid):
      (params_gradient, x_gradient), state = gradient(params, x, valid, 'devices')
      return jax.lax.psum(params_gradient, 'devices'), x_gradient, state

    def split(a):
      return a.reshape(2, -1, *a.shape[1:])

    actual, actual_x, state = jax.pmap(device, axis_name='devices', devices=jax.devices()[:2])(
      split(x), split(valid)
    )

    def close(a, b):
      return np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    jax.tree.map(lambda a, b: close(a[0], b), actual, expected)
    jax.tree.map(lambda a, b: close(a[1], b), state, expected_state)
    close(actual_x.reshape(x.shape), expected_x)


@pytest.mark.parametrize('channels', [8, 32])
def test_group_norm_matches_torch_in_training_and_prediction(channels):
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  x = (3 + rng.normal(size=(3, 5, 4, channels))).astype(np.float32)
  weight, bias = rng.normal(size=(2, channels)).astype(np.float32)
  module = GroupNorm()
  variables = {'params': {'scale': jnp.asarray(weight), 'bias': jnp.asarray(bias)}}
  expected = torch.nn.functional.group_norm(
    torch.from_numpy(x.transpose(0, 3, 1, 2)),
    max(channels // 16, 1),
    torch.from_numpy(weight),
    torch.from_numpy(bias),
  )
  for running in (False, True):
    actual = module.apply(variables, jnp.asarray(x), use_running_average=running)
    np.testing.assert_allclose(actual, expected.numpy().transpose(0, 2, 3, 1), atol=1e-5)
  alone = module.apply(variables, jnp.asarray(x[1:2]), use_running_average=False)
  np.testing.assert_allclose(alone[0], actual[1], atol=1e-6)


def test_group_norm_refuses_channels_that_make_no_groups():
  with pytest.raises(ValueError, match='24 channels do not make groups of 16'):
    GroupNorm().init(jax.random.key(0), jnp.zeros((1, 2, 2, 24)), use_running_average=False)
