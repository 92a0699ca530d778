r"""Self-contrastive + angular-margin recogniser on MixedWM38 wafer maps, 20 per class.

Paper: Phuong et al. 2024, Table VI (92.27 % at 20 per class on the whole set; on a
       part of the set the problem, and so the figure, is another).
Run:   python -m launch.train --config=configs/contrastive_margin_mixedwm38.py \
           --config.data.dir=FOLDER
Needs: the official npz (or a part) in FOLDER, and ImageNet weights.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'mixedwm38'
  c.data.dir = f'{DATA}/MixedWM38-subset'
  c.data.image_size = (104, 104)  # every cell of the 52 x 52 map becomes 2 x 2 pixels
  c.data.interpolation = 'nearest'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 20
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
  c.method.frozen_stages = 1  # wafer maps are far from photographs
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.projection = (512, 128)
  c.method.temperature = 0.5
  c.method.positives = 'views'  # or class: supervised contrastive
  c.method.embedding = 'features'
  c.method.augmentation = ConfigDict(
    {'crop_scale': (0.7, 1.0)}
  )  # a corner of a wafer is another pattern

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 32
  c.steps = 600
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
    c.split.per_class = 1
    c.split.max_test = 40
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages = 2, 0
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'contrastive_margin_mixedwm38 has no variant {variant!r}: smoke')
  return c
