r"""Self-contrastive + angular-margin recogniser on your own pictures: one sub-folder per class.

Run:   python -m launch.train --config=configs/contrastive_margin_folder.py \
           --config.data.dir=PICTURES
       --config.split.train=0.5          train on fewer, test on more
       --config.pretrained.weights=''    start from random weights (slower, and less accurate)
Needs: PICTURES/<class>/*.png (or jpg, tif, bmp; gray, colour or 16-bit) and ImageNet weights: a
       torchvision file, --config.pretrained.weights=resnet18.pth --config.pretrained.stages=3
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'folder'
  c.data.dir = 'pictures'
  c.data.image_size = (160, 160)
  c.data.interpolation = 'bilinear'
  c.data.sixteen_bit_range = (0, 65535)  # gray levels that are black and white; 12 bits: (0, 4095)
  c.data.lots = ''  # CSV file with the columns image and lot
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'fraction'
  c.split.train = 0.7  # of each class; the others test
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18'
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'contrastive_margin'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.frozen_stages = 2  # half the time of 1
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.projection = (512, 128)
  c.method.temperature = 0.5
  c.method.positives = 'views'  # or class: supervised contrastive
  c.method.embedding = 'features'  # compares a little better than the projection
  c.method.augmentation = ConfigDict({'crop_scale': (0.5, 1.0)})
  c.method.augmentation.flips = True
  c.method.augmentation.quarter_turns = True  # False where all classes have a direction
  c.method.augmentation.angle = 0.0  # 180 turns freely
  c.method.augmentation.angle_limits = ConfigDict()  # {'scratch': 15.0}: of a directional class
  c.method.augmentation.elastic = 0.0  # 0.03 bends a little
  c.method.augmentation.brightness = 0.0
  c.method.augmentation.contrast = 0.0

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 32
  c.steps = 100
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 25
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data.image_size = (32, 32)
    c.split.train = 0.25
    c.split.max_test = 12
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages = 2, 0
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'contrastive_margin_folder has no variant {variant!r}: smoke')
  return c
