"""Array in, array out: image operations without parameters."""

from jaxdefect.ops.anchors import grid_anchors
from jaxdefect.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from jaxdefect.ops.deform_conv import deform_conv2d
from jaxdefect.ops.matching import Matches, Sample, match_boxes, sample_matches
from jaxdefect.ops.nms import nms, nms_per_class
from jaxdefect.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels
from jaxdefect.ops.proposals import select_detections, select_proposals
from jaxdefect.ops.roi_align import multiscale_roi_align, roi_align
from jaxdefect.ops.targets import AnchorTargets, RegionTargets, anchor_targets, region_targets
from jaxdefect.ops.warp import affine_grid, warp

__all__ = [  # noqa: RUF022 (plain order, as everywhere)
  'AnchorTargets',
  'IMAGENET_MEAN',
  'IMAGENET_STD',
  'Matches',
  'RegionTargets',
  'Sample',
  'affine_grid',
  'anchor_targets',
  'box_area',
  'box_iou',
  'clip_boxes',
  'decode_boxes',
  'deform_conv2d',
  'encode_boxes',
  'grid_anchors',
  'match_boxes',
  'multiscale_roi_align',
  'nms',
  'nms_per_class',
  'normalize_pixels',
  'region_targets',
  'roi_align',
  'sample_matches',
  'select_detections',
  'select_proposals',
  'warp',
]
