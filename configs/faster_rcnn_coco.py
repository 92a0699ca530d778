"""Few-shot detector on a COCO data set of your own: a folder of images and one JSON file.

Paper: Xia & Long.
Run:   python -m launch.train --config=configs/faster_rcnn_coco.py --config.data.dir=IMAGES
       --config.data.annotations=instances.json
       --config=configs/faster_rcnn_coco.py:baseline       torchvision's Faster R-CNN
Needs: ImageNet weights (JAXDEFECT_DATA/weights, or pretrained.dir).
Score: yours; report.html tells.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'coco'
  c.data.dir = ''
  c.data.annotations = ''
  c.data.bad_boxes = 'error'  # 'repair' clips what leaves the image and leaves out empty boxes
  c.data.unmentioned = 'leave_out'  # 'negative': images that no annotation names show no defect
  c.data.image_size = (512, 512)
  c.data.interpolation = 'bilinear'
  c.data.sixteen_bit_range = (0, 65535)  # gray levels that are black and white; 12 bits: (0, 4095)
  c.data.max_boxes = 64

  c.split = ConfigDict()
  c.split.kind = 'boxes_fraction'
  c.split.train = 0.6
  c.split.validation = 0.1
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
  c.steps = 2000
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 100
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 6
  c.sampling_layer = 'layer3.1/conv2'  # whose sampling points the report draws
  c.tensorboard = False

  if variant == 'baseline':
    c.method.deformable = None
    c.method.neck, c.method.box_head, c.method.classifier = 'fpn', 'mlp', 'linear'
    c.method.balance_classes = False
  elif variant == 'smoke':
    c.data.image_size = (64, 64)
    c.split.train, c.split.validation = 0.5, 0.0
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages, c.method.width = 2, 0, 8
    c.method.neck_channels, c.method.extra_levels = 16, 1
    c.method.anchor_sizes = (16.0, 32.0)
    c.method.proposals_before, c.method.proposals, c.method.regions = 30, 20, 16
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
    c.sampling_layer = 'layer2.1/conv2'
  elif variant:
    raise ValueError(f'faster_rcnn_coco has no variant {variant!r}: baseline, smoke')
  return c
