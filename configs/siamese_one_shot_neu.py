"""Siamese one-shot recogniser on NEU: k images per class, a share of them, or classes never seen.

Paper: Deshpande et al. 2020; Phuong et al. 2024 quote 92.55 % at 80 % of the images (Table II) and
       83.22 % one-shot (section IV). The authors' code counts pairs, see the method.
Run:   python -m launch.train --config=configs/siamese_one_shot_neu.py --config.data.dir=NEU-DET
       --config.split.per_class=20                      another k
       --config=configs/siamese_one_shot_neu.py:percent --config.split.train=0.6
       --config=configs/siamese_one_shot_neu.py:unseen  three classes train, three are new
       --config.method.comparison=weighted_l1           the head of Koch et al. 2015
Needs: the NEU-DET folder. Starts from random weights.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'neu'
  c.data.dir = f'{DATA}/NEU-DET'
  c.data.image_size = (100, 100)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 10
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = ''

  c.method = ConfigDict()
  c.method.name = 'siamese_one_shot'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 1
  c.method.channels = (4, 8, 8)
  c.method.widths = (500, 500, 5)
  c.method.pool = False
  c.method.comparison = 'distance'
  c.method.augmentation = ConfigDict({'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 32
  c.steps = 300
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 300
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'percent':
    c.split = ConfigDict({'kind': 'fraction', 'train': 0.8})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 1000
  elif variant == 'unseen':
    c.split = ConfigDict({'kind': 'unseen_classes', 'shots': 5})
    c.split.train_classes = ('patches', 'inclusion', 'rolled-in_scale')
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 1000
  elif variant == 'smoke':
    c.data.image_size = (24, 24)
    c.split.per_class = 2
    c.split.max_test = 12
    c.method.widths = (16, 5)
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'siamese_one_shot_neu has no variant {variant!r}: percent, unseen, smoke')
  return c
