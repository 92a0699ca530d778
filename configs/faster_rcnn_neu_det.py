"""Few-shot detector (deformable ResNet, GS-FPN, prototypes in Faster R-CNN) on NEU-DET's boxes.

Paper: Xia & Long, Table 2 (86.4 -> 93.6 mAP on a private set; NEU-DET is not in it).
Run:   python -m launch.train --config=configs/faster_rcnn_neu_det.py --config.data.dir=NEU-DET
       --config=configs/faster_rcnn_neu_det.py:baseline   torchvision's Faster R-CNN
       --config=configs/faster_rcnn_neu_det.py:few --config.split.boxes_per_class=10
       --config=configs/faster_rcnn_neu_det.py:unseen     one class is added by adapt alone
Needs: the NEU-DET folder and ImageNet weights (JAXDEFECT_DATA/weights, or pretrained.dir).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'neu_det'
  c.data.dir = f'{DATA}/NEU-DET'
  c.data.image_size = (320, 320)  # of 200 x 200; paper A: 640 of unknown size
  c.data.interpolation = 'bilinear'
  c.data.max_boxes = 24

  c.split = ConfigDict()
  c.split.kind = 'boxes_fraction'
  c.split.train = 0.7
  c.split.validation = 0.1
  c.split.max_per_class = ConfigDict()  # {'scratches': 56} makes a class rare
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'faster_rcnn'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.frozen_stages = 1
  c.method.update_statistics = False  # the weights have BatchNorm folded in,
  c.method.frozen_norm = False  # and their biases are its biases
  c.method.deformable = config_dict.placeholder(str)  # None: ordinary convolutions
  c.method.deformable = 'v2'
  c.method.neck = 'gs_fpn'
  c.method.neck_channels = 128
  c.method.first_stage = 2
  c.method.extra_levels = 2
  c.method.box_head = 'gs'
  c.method.norm = 'group'  # two images per step are too few for batch statistics
  c.method.classifier = 'prototype'
  c.method.balance_classes = True
  c.method.anchor_sizes = (32.0, 64.0, 128.0, 256.0)  # strides 8, 16, 32, 64
  c.method.rpn_samples = 128
  c.method.proposals_before = 800
  c.method.proposals = 800
  c.method.regions = 64  # few, so that a fair share of them is positive
  c.method.augmentation = ConfigDict({'flips': True})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'  # SGD needs several times the steps
  c.optimizer.learning_rate = 2e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 50
  c.optimizer.clip_norm = 10.0

  c.batch_size = 2
  c.steps = 5040  # 8 epochs
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 500
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 6
  c.sampling_layer = 'layer3.1/conv2'  # whose sampling points the report draws
  c.tensorboard = False

  if variant == 'baseline':
    plain(c)
  elif variant == 'few':
    c.split = ConfigDict({'kind': 'boxes_few_shot', 'boxes_per_class': 10})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 800
  elif variant == 'unseen':
    c.split = ConfigDict({'kind': 'boxes_unseen', 'unseen': ('scratches',), 'shots': 5})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 2000
  elif variant == 'smoke':
    c.data.image_size = (64, 64)
    c.split.train, c.split.validation = 0.5, 0.0
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages, c.method.width = 2, 0, 8
    c.method.neck_channels, c.method.extra_levels = 16, 1
    c.method.anchor_sizes = (16.0, 32.0)
    c.sampling_layer = 'layer2.1/conv2'
    c.method.proposals_before, c.method.proposals, c.method.regions = 30, 20, 16
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant:
    raise ValueError(
      f'faster_rcnn_neu_det has no variant {variant!r}: baseline, few, unseen, smoke'
    )
  return c


def plain(c: ConfigDict) -> None:
  """Torchvision's Faster R-CNN: none of the paper's changes."""
  c.method.deformable = None
  c.method.neck, c.method.box_head = 'fpn', 'mlp'
  c.method.classifier, c.method.balance_classes = 'linear', False
