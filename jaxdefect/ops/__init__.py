"""Array in, array out: image operations without parameters."""

from jaxdefect.ops.anchors import grid_anchors
from jaxdefect.ops.anomaly_map import smooth_map
from jaxdefect.ops.bicubic import resize_bicubic
from jaxdefect.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from jaxdefect.ops.coreset import covering_radius, k_center_greedy, random_projection
from jaxdefect.ops.deform_conv import deform_conv2d
from jaxdefect.ops.discriminant import linear_discriminant
from jaxdefect.ops.foreground import foreground_mask
from jaxdefect.ops.matching import Matches, Sample, match_boxes, sample_matches
from jaxdefect.ops.nearest_neighbors import nearest_neighbors
from jaxdefect.ops.nms import nms, nms_per_class
from jaxdefect.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize_pixels
from jaxdefect.ops.proposals import select_detections, select_proposals
from jaxdefect.ops.pseudo_labels import agreed_labels
from jaxdefect.ops.roi_align import multiscale_roi_align, roi_align
from jaxdefect.ops.routing import route
from jaxdefect.ops.sharded_bank import (
  device_mesh,
  sharded_k_center_greedy,
  sharded_nearest_neighbors,
  sharded_take,
  spread_rows,
)
from jaxdefect.ops.targets import (
  AnchorTargets,
  RegionTargets,
  anchor_targets,
  label_boxes,
  region_targets,
)
from jaxdefect.ops.task_aligned import AlignedTargets, task_aligned_targets
from jaxdefect.ops.warp import affine_grid, warp

__all__ = [  # noqa: RUF022 (plain order, as everywhere)
  'AlignedTargets',
  'AnchorTargets',
  'IMAGENET_MEAN',
  'IMAGENET_STD',
  'Matches',
  'RegionTargets',
  'Sample',
  'affine_grid',
  'agreed_labels',
  'anchor_targets',
  'box_area',
  'box_iou',
  'clip_boxes',
  'covering_radius',
  'decode_boxes',
  'deform_conv2d',
  'device_mesh',
  'encode_boxes',
  'foreground_mask',
  'grid_anchors',
  'k_center_greedy',
  'label_boxes',
  'linear_discriminant',
  'match_boxes',
  'multiscale_roi_align',
  'nearest_neighbors',
  'nms',
  'nms_per_class',
  'normalize_pixels',
  'random_projection',
  'region_targets',
  'resize_bicubic',
  'roi_align',
  'route',
  'sample_matches',
  'select_detections',
  'select_proposals',
  'sharded_k_center_greedy',
  'sharded_nearest_neighbors',
  'sharded_take',
  'smooth_map',
  'spread_rows',
  'task_aligned_targets',
  'warp',
]
