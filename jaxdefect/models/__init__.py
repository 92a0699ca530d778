"""Networks: linen modules, forward only."""

from jaxdefect.models.backbone import Backbone, backbone, is_frozen
from jaxdefect.models.convolution import Conv, conv2d
from jaxdefect.models.normalization import BatchNorm
from jaxdefect.models.pooling import global_average_pool, max_pool
from jaxdefect.models.pretrained import merge_pretrained
from jaxdefect.models.recogniser import ProjectionMLP, Recogniser, Recognition

__all__ = [
  'Backbone',
  'BatchNorm',
  'Conv',
  'ProjectionMLP',
  'Recogniser',
  'Recognition',
  'backbone',
  'conv2d',
  'global_average_pool',
  'is_frozen',
  'max_pool',
  'merge_pretrained',
]
