"""Supervised good-or-defective on bottle caps: what stands beside the anomaly methods.

Paper: no table of a source; source P says that PatchCore alarms more often than a supervised model.
Run:   python -m launch.train --config=configs/classifier_bc.py
       --config=configs/classifier_bc.py:few --config.split.per_class=30   from few of each kind
Needs: the BC folder and ImageNet weights (JAXDEFECT_DATA/weights, or pretrained.dir).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'bc'
  c.data.dir = f'{DATA}/BC'
  c.data.image_size = (160, 160)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'fraction'
  c.split.train = 0.7
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'classifier'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.frozen_stages = 2  # half the time of 1
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.balance_classes = True  # 710 good, 268 defective
  c.method.augmentation = ConfigDict({'crop_scale': (0.8, 1.0)})

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
  c.checkpoint_every = 100
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'few':
    c.split = ConfigDict({'kind': 'few_shot', 'per_class': 30})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 150
  elif variant == 'smoke':
    c.data = ConfigDict({'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain'})
    c.data.tone, c.data.num_good, c.data.num_defect, c.data.size = 'dark', 10, 10, 64
    c.data.image_size, c.data.interpolation = (32, 32), 'bilinear'
    c.split.train = 0.5
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages = 2, 0
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'classifier_bc has no variant {variant!r}: few, smoke')
  return c
