"""Self-contrastive + angular-margin recogniser on X-SDD steel, k images per class.

Paper: none gives this row; it is NEU's neighbour, with classes of very different size.
Run:   python -m launch.train --config=configs/contrastive_margin_xsdd.py --config.data.dir=X-SDD
Needs: the X-SDD folder and ImageNet weights (JAXDEFECT_DATA/weights, or pretrained.dir).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'xsdd'
  c.data.dir = f'{DATA}/X-SDD'
  c.data.image_size = (160, 160)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 10
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
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
  c.checkpoint_every = 100
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data.image_size = (32, 32)
    c.split.per_class = 2
    c.split.max_test = 12
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages = 2, 0
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'contrastive_margin_xsdd has no variant {variant!r}: smoke')
  return c
