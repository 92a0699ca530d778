"""Networks: linen modules, forward only."""

from jaxdefect.models.backbone import Backbone, backbone, is_frozen
from jaxdefect.models.box_head import BoxPredictor, GSBoxHead, MLPBoxHead
from jaxdefect.models.conv4 import Conv4
from jaxdefect.models.convolution import Conv, conv2d
from jaxdefect.models.coordinate_attention import CoordinateAttention
from jaxdefect.models.deform_conv import DeformConv
from jaxdefect.models.detector import BoxEmbedder, Detector, Pyramid, detector, sampling_offsets
from jaxdefect.models.fpn import FPN, GSFPN, pyramid_strides
from jaxdefect.models.gsconv import GSBottleneck, GSConv, VoVGSCSP, shuffle_channels
from jaxdefect.models.medetection import MeDetection, MeDetectionOutputs, medetection
from jaxdefect.models.normalization import BatchNorm, GroupNorm
from jaxdefect.models.pooling import global_average_pool, max_pool
from jaxdefect.models.pretrained import merge_pretrained
from jaxdefect.models.recogniser import ProjectionMLP, Recogniser, Recognition
from jaxdefect.models.rpn import RPNHead
from jaxdefect.models.siamese import SiameseStem, VGGStem

__all__ = [  # noqa: RUF022 - plain order, as in every room
  'Backbone',
  'BatchNorm',
  'BoxEmbedder',
  'BoxPredictor',
  'Conv',
  'Conv4',
  'CoordinateAttention',
  'DeformConv',
  'Detector',
  'FPN',
  'GSBottleneck',
  'GSBoxHead',
  'GSConv',
  'GSFPN',
  'GroupNorm',
  'MLPBoxHead',
  'MeDetection',
  'MeDetectionOutputs',
  'ProjectionMLP',
  'Pyramid',
  'RPNHead',
  'Recogniser',
  'Recognition',
  'SiameseStem',
  'VGGStem',
  'VoVGSCSP',
  'backbone',
  'conv2d',
  'detector',
  'global_average_pool',
  'is_frozen',
  'max_pool',
  'medetection',
  'merge_pretrained',
  'pyramid_strides',
  'sampling_offsets',
  'shuffle_channels',
]
