"""Detector of the YOLOv8 class on NEU-DET's boxes, to compare the few-shot detector with.

Paper: none of its own; see jaxdefect/methods/yolo.py for those of its parts.
Run:   python -m launch.train --config=configs/yolo_neu_det.py --config.data.dir=NEU-DET
       --config=configs/yolo_neu_det.py:s                 twice the width
       --config=configs/yolo_neu_det.py:few --config.split.boxes_per_class=10
Needs: the NEU-DET folder; no weights, training starts from random ones.
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
  c.data.image_size = (320, 320)  # of 200 x 200; as in faster_rcnn_neu_det
  c.data.interpolation = 'bilinear'
  c.data.max_boxes = 24

  c.split = ConfigDict()
  c.split.kind = 'boxes_fraction'  # that of faster_rcnn_neu_det
  c.split.train = 0.7
  c.split.validation = 0.1
  c.split.max_per_class = ConfigDict()  # {'scratches': 56} makes a class rare
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = ''
  c.pretrained.dir = ''
  c.pretrained.stages = config_dict.placeholder(int)

  c.method = ConfigDict()
  c.method.name = 'yolo'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.width = 0.25  # the size 'n'
  c.method.depth = 1 / 3
  c.method.average_decay = 0.998
  c.method.augmentation = ConfigDict({'flips': True, 'scale': (0.7, 1.4)})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 2e-3
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 100
  c.optimizer.weight_decay = 5e-4
  c.optimizer.clip_norm = 10.0

  c.batch_size = 8
  c.steps = 5040  # 32 epochs
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 500
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 6
  c.tensorboard = False

  if variant == 's':
    c.method.width = 0.5
  elif variant == 'few':
    c.split = ConfigDict({'kind': 'boxes_few_shot', 'boxes_per_class': 10})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 800
  elif variant == 'smoke':
    c.data.image_size = (64, 64)
    c.split.train, c.split.validation = 0.5, 0.0
    c.method.width = 0.125
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant:
    raise ValueError(f'yolo_neu_det has no variant {variant!r}: s, few, smoke')
  return c
