"""Losses: pure functions that return one value per example, in at least float32."""

from jaxdefect.losses.contrastive import nt_xent, supervised_contrastive, three_view_nt_xent
from jaxdefect.losses.cosine import cosine_logits, unit_vectors
from jaxdefect.losses.cross_entropy import softmax_cross_entropy
from jaxdefect.losses.decorrelation import mean_square_correlation
from jaxdefect.losses.detection import balance_weights, sigmoid_cross_entropy, smooth_l1
from jaxdefect.losses.margin import arcface
from jaxdefect.losses.prototype import (
  centred_means,
  class_means,
  prototype_cross_entropy,
  prototype_logits,
  update_prototypes,
)
from jaxdefect.losses.two_stage import proposal_loss, region_loss

__all__ = [
  'arcface',
  'balance_weights',
  'centred_means',
  'class_means',
  'cosine_logits',
  'mean_square_correlation',
  'nt_xent',
  'proposal_loss',
  'prototype_cross_entropy',
  'prototype_logits',
  'region_loss',
  'sigmoid_cross_entropy',
  'smooth_l1',
  'softmax_cross_entropy',
  'supervised_contrastive',
  'three_view_nt_xent',
  'unit_vectors',
  'update_prototypes',
]
