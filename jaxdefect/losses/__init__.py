"""Losses: pure functions that return one value per example, in at least float32."""

from jaxdefect.losses.contrastive import nt_xent, three_view_nt_xent
from jaxdefect.losses.cosine import cosine_logits, unit_vectors
from jaxdefect.losses.cross_entropy import softmax_cross_entropy
from jaxdefect.losses.margin import arcface

__all__ = [
  'arcface',
  'cosine_logits',
  'nt_xent',
  'softmax_cross_entropy',
  'three_view_nt_xent',
  'unit_vectors',
]
