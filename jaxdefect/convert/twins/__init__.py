"""The PyTorch twins: what ``launch.convert`` puts into a model's folder; they need torch alone.

Whole files of this folder become the ``model.py`` of an export (``convert.source_of``), so nothing
here imports anything but torch and the standard library, and every name at the top of a file is
used once over all of them.
"""

from jaxdefect.convert.twins.anomaly_dino import AnomalyDINO
from jaxdefect.convert.twins.backbone import NETWORKS, Backbone, backbone
from jaxdefect.convert.twins.casi_net import CASINet
from jaxdefect.convert.twins.dc_net import DCNet
from jaxdefect.convert.twins.deep_svdd import DeepSVDD
from jaxdefect.convert.twins.deployed import FAMILIES, Deployed, Inspector, make
from jaxdefect.convert.twins.detector import Detector
from jaxdefect.convert.twins.efficientnet import EfficientNet
from jaxdefect.convert.twins.ganomaly import GANomaly
from jaxdefect.convert.twins.hybrid import Hybrid
from jaxdefect.convert.twins.medetection import MeDetection
from jaxdefect.convert.twins.mobilenet_v2 import MobileNetV2
from jaxdefect.convert.twins.mobilenet_v2_gluon import MobileNetV2Gluon
from jaxdefect.convert.twins.nearest_neighbor import NearestNeighbor
from jaxdefect.convert.twins.package import FORMAT, load
from jaxdefect.convert.twins.padim import PaDiM
from jaxdefect.convert.twins.patch_svdd import PatchSVDD
from jaxdefect.convert.twins.patchcore import PatchCore
from jaxdefect.convert.twins.recognition import Classifier, Recogniser
from jaxdefect.convert.twins.resnet import ResNet
from jaxdefect.convert.twins.resnet_v2 import ResNetV2
from jaxdefect.convert.twins.siamese_one_shot import SiameseOneShot
from jaxdefect.convert.twins.spade import Spade
from jaxdefect.convert.twins.uninformed_students import UninformedStudents
from jaxdefect.convert.twins.vision_transformer import VisionTransformer
from jaxdefect.convert.twins.wafer_seg_class_net import WaferSegClassNet
from jaxdefect.convert.twins.yolo import Yolo

__all__ = [
  'FAMILIES',
  'FORMAT',
  'NETWORKS',
  'AnomalyDINO',
  'Backbone',
  'CASINet',
  'Classifier',
  'DCNet',
  'DeepSVDD',
  'Deployed',
  'Detector',
  'EfficientNet',
  'GANomaly',
  'Hybrid',
  'Inspector',
  'MeDetection',
  'MobileNetV2',
  'MobileNetV2Gluon',
  'NearestNeighbor',
  'PaDiM',
  'PatchCore',
  'PatchSVDD',
  'Recogniser',
  'ResNet',
  'ResNetV2',
  'SiameseOneShot',
  'Spade',
  'UninformedStudents',
  'VisionTransformer',
  'WaferSegClassNet',
  'Yolo',
  'backbone',
  'load',
  'make',
]
