"""A ``Fitted`` survives its file bit for bit, and bad files are refused in one sentence."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import train
from jaxdefect.contracts import Fitted

FITTED = Fitted(
  params={
    'backbone': {'layer1.0': {'conv1': {'kernel': jnp.arange(6.0).reshape(2, 3)}}},
    'threshold': jnp.float32(0.5),
  },
  model_state={'batch_stats': {'bn1': {'mean': jnp.zeros(3)}}},
  memory={'embeddings': jnp.ones((2, 4)), 'labels': jnp.array([0, 1], jnp.int32)},
  classes=('dent, small', 'Kratzer/ß'),
)


def test_there_and_back_is_exact(tmp_path):
  train.save_fitted(tmp_path / 'fitted.safetensors', FITTED)
  back = train.load_fitted(tmp_path / 'fitted.safetensors')
  chex.assert_trees_all_equal(back, FITTED)
  chex.assert_trees_all_equal_shapes_and_dtypes(back, FITTED)
  assert back.classes == FITTED.classes
  assert back.calibration is None
  assert [p.name for p in tmp_path.iterdir()] == ['fitted.safetensors']
  train.save_fitted(tmp_path / 'again', back)
  assert (tmp_path / 'again').read_bytes() == (tmp_path / 'fitted.safetensors').read_bytes()


def test_transposed_array_keeps_its_values(tmp_path):
  fitted = FITTED.replace(memory={'a': np.arange(6.0, dtype=np.float32).reshape(2, 3).T})
  train.save_fitted(tmp_path / 'f', fitted)
  np.testing.assert_array_equal(train.load_fitted(tmp_path / 'f').memory['a'], fitted.memory['a'])


def test_rejects_what_is_no_fitted_model(tmp_path):
  with pytest.raises(ValueError, match='has not finished training'):
    train.load_fitted(tmp_path / 'none')
  (tmp_path / 'noise').write_bytes(b'noise')
  with pytest.raises(ValueError, match='is not a fitted model'):
    train.load_fitted(tmp_path / 'noise')
  with pytest.raises(ValueError, match='only arrays can be stored'):
    train.save_fitted(tmp_path / 'f', FITTED.replace(memory=[1, 2]))
  assert not (tmp_path / 'f').exists()
