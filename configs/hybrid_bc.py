"""A supervised head and PatchCore side by side on bottle caps, and the rule of 30 between them.

Paper: source P: below 30 confirmed samples of a failure mode the anomaly score may flag for review
       and never rejects; from 30 on the supervised head decides.
Run:   python -m launch.train --config=configs/hybrid_bc.py
       --config.split.per_class=40       enough samples: the head decides
       --config.method.min_confirmed=50  or ask for more of them
       --config=configs/hybrid_bc.py:magnetic_tile
Needs: the sets below JAXDEFECT_DATA and ImageNet weights (JAXDEFECT_DATA/weights).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

TARGETS = {
  'bc': {'name': 'bc', 'dir': f'{DATA}/BC'},
  'magnetic_tile': {'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile'},
  'elpv': {'name': 'elpv', 'dir': f'{DATA}/ELPV'},
}


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict(TARGETS.get(variant, TARGETS['bc']))
  c.data.image_size = (160, 160)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_defects'
  c.split.train = 0.56  # of the good parts
  c.split.validation = 0.14  # of the good parts, for the threshold
  c.split.per_class = 10
  c.split.max_test = config_dict.placeholder(int)

  c.calibration = ConfigDict()
  c.calibration.kind = 'split'
  c.calibration.folds = 0
  c.calibration.false_alarm_rate = 0.05

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'hybrid'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.min_confirmed = 30
  c.method.augmentation = ConfigDict({'crop_scale': (0.8, 1.0)})
  c.method.supervised = ConfigDict({'name': 'classifier', 'frozen_stages': 2})
  c.method.supervised.balance_classes = True
  c.method.anomaly = ConfigDict({'name': 'patchcore', 'layers': (2, 3), 'coreset': 0.1})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 32
  c.steps = 150
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 150
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data = ConfigDict({'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain'})
    c.data.tone, c.data.num_good, c.data.num_defect, c.data.size = 'dark', 30, 10, 64
    c.data.image_size, c.data.interpolation = (32, 32), 'bilinear'
    c.split.train, c.split.validation, c.split.per_class = 0.3, 0.4, 4
    c.calibration.false_alarm_rate = 0.2
    c.pretrained.weights = ''
    c.method.stages = 2
    c.method.supervised.frozen_stages = 0
    c.method.anomaly.layers = (1, 2)
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant and variant not in TARGETS:
    raise ValueError(f'hybrid_bc has no variant {variant!r}: {", ".join(TARGETS)}, smoke')
  return c
