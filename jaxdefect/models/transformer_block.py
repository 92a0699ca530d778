"""A pre-norm transformer block, as in a vision transformer.

Shape legend: N images, T tokens, D features of a token, h heads, d = D / h features of a head.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_LINEAR = nn.initializers.truncated_normal(0.02)


class SelfAttention(nn.Module):
  r"""Multi-head self-attention over the tokens of an image.

  .. math:: \mathrm{softmax}\bigl(Q K^T / \sqrt d\bigr) V

  in each head, all heads side by side, projected. Q, K and V are one dense layer (``qkv``), whose
  outputs stand in the order Q, K, V, then head, then feature.

  Attributes:
    heads: h.
    dtype: type of the computation; the softmax is in float32 at least.

  Reference:
    Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, eq. 1.
  """

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, T, D] -> [N, T, D]."""
    count, tokens, features = x.shape
    qkv = nn.Dense(3 * features, dtype=self.dtype, kernel_init=_LINEAR, name='qkv')(x)
    qkv = qkv.reshape(count, tokens, 3, self.heads, features // self.heads)
    mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    mixed = mixed.reshape(count, tokens, features)
    return nn.Dense(features, dtype=self.dtype, kernel_init=_LINEAR, name='proj')(mixed)


class TokenMLP(nn.Module):
  """Two dense layers with the exact GELU between them; the hidden one is four times as wide."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, T, D] -> [N, T, D]."""
    features = x.shape[-1]
    x = nn.Dense(4 * features, dtype=self.dtype, kernel_init=_LINEAR, name='fc1')(x)
    x = nn.gelu(x, approximate=False)
    return nn.Dense(features, dtype=self.dtype, kernel_init=_LINEAR, name='fc2')(x)


class LayerScale(nn.Module):
  """One learned factor per feature (``gamma``), 1 at the start.

  Reference:
    Touvron et al., `Going Deeper with Image Transformers <https://arxiv.org/abs/2103.17239>`_,
    eq. 4.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, T, D] -> [N, T, D]."""
    gamma = self.param('gamma', nn.initializers.ones, x.shape[-1:], jnp.float32)
    return x * gamma.astype(self.dtype)


class TransformerBlock(nn.Module):
  r"""Attention and an MLP, each behind a LayerNorm and beside a skip.

  .. math:: x \leftarrow x + \gamma_1 \odot \mathrm{attn}(\mathrm{norm}_1(x)), \qquad
            x \leftarrow x + \gamma_2 \odot \mathrm{mlp}(\mathrm{norm}_2(x))

  Attributes:
    heads: of the attention.
    scaled: whether there are the factors :math:`\gamma` (``ls1``, ``ls2``).
    dtype: type of the computation.
  """

  heads: int
  scaled: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, T, D] -> [N, T, D]."""
    y = SelfAttention(self.heads, dtype=self.dtype, name='attn')(layer_norm('norm1', self.dtype)(x))
    x = x + (LayerScale(dtype=self.dtype, name='ls1')(y) if self.scaled else y)
    y = TokenMLP(dtype=self.dtype, name='mlp')(layer_norm('norm2', self.dtype)(x))
    return x + (LayerScale(dtype=self.dtype, name='ls2')(y) if self.scaled else y)


def layer_norm(name: str, dtype: Any) -> nn.LayerNorm:
  """A LayerNorm with the epsilon of vision transformers, statistics in float32 at least."""
  # The fast variance is a difference of means of squares; some tokens of DINOv2 are far too long.
  return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype, name=name)
