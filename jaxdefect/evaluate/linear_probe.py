"""The floor: multinomial logistic regression on the raw pixels, made small.

Shape legend: N images, H x W pixels, C channels, h x w the small size, D = h*w*C, K classes.

A report prints it beside the model. What a linear map of a few hundred pixels gets right needed no
network; it is fitted on the same images and predicts through the same runner as any method.
"""

import warnings
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

from jaxdefect.contracts import Batch, ClassScores, Fitted

# Logit of a class without a training image: far below the others, and still finite.
_NEVER = -1e4


def fit(
  batches: Iterable[Batch],
  classes: Sequence[str],
  *,
  size: tuple[int, int] = (16, 16),
  inverse_strength: float = 10.0,
) -> Fitted:
  r"""Fits the linear model.

  With :math:`x` the small image after subtracting the training mean image and dividing by one
  common standard deviation times :math:`\sqrt D`, it minimises
  :math:`\tfrac12\|W\|^2 + C \sum_n -\log\operatorname{softmax}(W^T x_n + b)_{y_n}`.

  Args:
    batches: padded training batches, as they are (no augmentation).
    classes: K names that ``batch['label']`` counts in.
    size: (h, w) in pixels that images are brought to, with antialiasing.
    inverse_strength: C above; larger trusts the training images more.

  Returns:
    A ``Fitted`` for ``predict``. A class without a training image is never predicted.

  Raises:
    ValueError: if no batch holds a valid image.
  """
  shrink = jax.jit(lambda image: _small(image, size).reshape(len(image), -1))
  rows, labels = [], []
  for batch in batches:
    valid = np.asarray(batch['valid'])
    rows.append(np.asarray(shrink(batch['image']))[valid])
    labels.append(np.asarray(batch['label'])[valid])
  if not sum(map(len, rows)):
    raise ValueError('batches holds no valid image; at least one is needed to fit the floor.')
  x, y = np.concatenate(rows).astype(np.float64), np.concatenate(labels)  # [N, D], [N]

  mean = x.mean(axis=0)
  x = x - mean
  scale = max(float(x.std()), 1e-6) * np.sqrt(x.shape[1])
  kernel = np.zeros((x.shape[1], len(classes)))
  bias = np.full(len(classes), _NEVER)
  seen = np.unique(y)
  bias[seen] = 0.0
  if len(seen) > 1:
    # W lies in the span of the images: solving in their basis is exact, and small.
    _, singular, basis = np.linalg.svd(x / scale, full_matrices=False)
    basis = basis[singular > 1e-9 * max(singular[0], 1e-300)]
    if len(basis):
      model = LogisticRegression(C=inverse_strength, max_iter=5000)
      with warnings.catch_warnings():
        # One picture per class is few, and still classification.
        warnings.filterwarnings('ignore', message='The number of unique classes')
        model.fit((x / scale) @ basis.T, y)
      weights, offsets = model.coef_, model.intercept_
      if len(seen) == 2:  # one row: the second class against the first
        weights, offsets = np.concatenate([0 * weights, weights]), np.append(0.0, offsets)
      kernel[:, seen] = basis.T @ weights.T
      bias[seen] = offsets
  kernel = kernel / scale
  params = {
    'kernel': jnp.asarray(kernel.reshape(*size, -1, len(classes)), jnp.float32),  # [h, w, C, K]
    'bias': jnp.asarray(bias - mean @ kernel, jnp.float32),
  }
  return Fitted(params=params, model_state={}, classes=tuple(classes))


def predict(fitted: Fitted, batch: Batch) -> ClassScores:
  """Scores images with the linear model; a ``Method.predict``, so the runner takes it.

  Args:
    fitted: from ``fit``.
    batch: as in ``contracts.batch``; any image size.

  Returns:
    Logits [N, K] and their softmax.
  """
  kernel = fitted.params['kernel']
  small = _small(batch['image'], kernel.shape[:2])
  logits = jnp.einsum('nhwc,hwck->nk', small, kernel) + fitted.params['bias']
  return ClassScores(scores=logits, probabilities=jax.nn.softmax(logits))


def _small(image: jax.Array, size: tuple[int, int]) -> jax.Array:
  """[N,H,W,C] 0..255 -> [N,h,w,C] 0..1."""
  n, _, _, channels = image.shape
  image = jnp.asarray(image, jnp.float32) / 255.0
  return jax.image.resize(image, (n, *size, channels), 'linear', antialias=True)
