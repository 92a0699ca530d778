"""Networks: linen modules, forward only."""

from jaxdefect.models.backbone import Backbone, backbone, is_frozen
from jaxdefect.models.box_head import BoxPredictor, GSBoxHead, MLPBoxHead
from jaxdefect.models.casi_net import CASINet, CASINetOutputs
from jaxdefect.models.conv4 import Conv4
from jaxdefect.models.convolution import Conv, conv2d
from jaxdefect.models.coordinate_attention import CoordinateAttention
from jaxdefect.models.csp import CSPBlock, PyramidPool
from jaxdefect.models.dc_net import DCNet
from jaxdefect.models.deform_conv import DeformConv
from jaxdefect.models.detector import BoxEmbedder, Detector, Pyramid, detector, sampling_offsets
from jaxdefect.models.fpn import FPN, GSFPN, pyramid_strides
from jaxdefect.models.frozen_backbone import FrozenBackbone, frozen_backbone
from jaxdefect.models.ganomaly import Discriminator, Generator
from jaxdefect.models.gsconv import GSBottleneck, GSConv, VoVGSCSP, shuffle_channels
from jaxdefect.models.medetection import MeDetection, MeDetectionOutputs, medetection
from jaxdefect.models.multi_training_gan import ClassDiscriminator, ClassGenerator
from jaxdefect.models.normalization import BatchNorm, GroupNorm
from jaxdefect.models.one_class_encoder import OneClassEncoder
from jaxdefect.models.patch_features import PatchFeatures, pooled_features
from jaxdefect.models.pooling import global_average_pool, max_pool
from jaxdefect.models.pretrained import initial_variables, merge_pretrained
from jaxdefect.models.recogniser import ProjectionMLP, Recogniser, Recognition
from jaxdefect.models.region_search import Regions, find_regions, propose
from jaxdefect.models.rpn import RPNHead
from jaxdefect.models.siamese import SiameseStem, VGGStem
from jaxdefect.models.siamese_one_shot import SiameseEncoder
from jaxdefect.models.transposed_convolution import ConvTranspose, conv_transpose2d
from jaxdefect.models.vision_transformer import (
  VISION_TRANSFORMERS,
  VisionTransformer,
  vision_transformer,
)
from jaxdefect.models.wafer_seg_class_net import Segmentation, WaferSegClassNet
from jaxdefect.models.yolo import Yolo, YoloOutputs

__all__ = [  # noqa: RUF022 - plain order, as in every room
  'Backbone',
  'BatchNorm',
  'BoxEmbedder',
  'BoxPredictor',
  'CASINet',
  'CASINetOutputs',
  'CSPBlock',
  'ClassDiscriminator',
  'ClassGenerator',
  'Conv',
  'Conv4',
  'ConvTranspose',
  'CoordinateAttention',
  'DCNet',
  'DeformConv',
  'Detector',
  'Discriminator',
  'FPN',
  'FrozenBackbone',
  'GSBottleneck',
  'GSBoxHead',
  'GSConv',
  'GSFPN',
  'Generator',
  'GroupNorm',
  'MLPBoxHead',
  'MeDetection',
  'MeDetectionOutputs',
  'OneClassEncoder',
  'PatchFeatures',
  'ProjectionMLP',
  'Pyramid',
  'PyramidPool',
  'RPNHead',
  'Recogniser',
  'Recognition',
  'Regions',
  'Segmentation',
  'SiameseEncoder',
  'SiameseStem',
  'VGGStem',
  'VISION_TRANSFORMERS',
  'VisionTransformer',
  'VoVGSCSP',
  'WaferSegClassNet',
  'Yolo',
  'YoloOutputs',
  'backbone',
  'conv2d',
  'conv_transpose2d',
  'detector',
  'find_regions',
  'frozen_backbone',
  'global_average_pool',
  'initial_variables',
  'is_frozen',
  'max_pool',
  'medetection',
  'merge_pretrained',
  'pooled_features',
  'propose',
  'pyramid_strides',
  'sampling_offsets',
  'shuffle_channels',
  'vision_transformer',
]
