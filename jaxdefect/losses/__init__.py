"""Losses: pure functions that return one value per example, in at least float32."""

from jaxdefect.losses.complete_iou import complete_iou
from jaxdefect.losses.contrastive import nt_xent, supervised_contrastive, three_view_nt_xent
from jaxdefect.losses.cosine import cosine_logits, unit_vectors
from jaxdefect.losses.cross_entropy import softmax_cross_entropy
from jaxdefect.losses.decorrelation import mean_square_correlation
from jaxdefect.losses.detection import balance_weights, sigmoid_cross_entropy, smooth_l1
from jaxdefect.losses.dice import dice_loss
from jaxdefect.losses.distribution_focal import distribution_focal
from jaxdefect.losses.margin import arcface
from jaxdefect.losses.n_pair import n_pair
from jaxdefect.losses.pairs import (
  Pairs,
  contrastive_costs,
  mean_over_pairs,
  pairs_of_batch,
  squared_distances,
  weighted_l1_logits,
)
from jaxdefect.losses.prototype import (
  centred_means,
  class_means,
  prototype_cross_entropy,
  prototype_logits,
  update_prototypes,
)
from jaxdefect.losses.two_stage import proposal_loss, region_loss

__all__ = [
  'Pairs',
  'arcface',
  'balance_weights',
  'centred_means',
  'class_means',
  'complete_iou',
  'contrastive_costs',
  'cosine_logits',
  'dice_loss',
  'distribution_focal',
  'mean_over_pairs',
  'mean_square_correlation',
  'n_pair',
  'nt_xent',
  'pairs_of_batch',
  'proposal_loss',
  'prototype_cross_entropy',
  'prototype_logits',
  'region_loss',
  'sigmoid_cross_entropy',
  'smooth_l1',
  'softmax_cross_entropy',
  'squared_distances',
  'supervised_contrastive',
  'three_view_nt_xent',
  'unit_vectors',
  'update_prototypes',
  'weighted_l1_logits',
]
