"""Deep one-class classification (Deep SVDD) on the bottle caps: an encoder learns one point.

Paper: Ruff et al. 2018, Deep One-Class Classification ('DOCC' of Zhang et al. 2023, Table 2).
Run:   python -m launch.train --config=configs/deep_svdd_bc.py
       --config=configs/deep_svdd_bc.py:elpv        another product
       --config=configs/deep_svdd_bc.py:pretrained  on the maps of a pretrained ResNet-18
Needs: the sets of TASKS below JAXDEFECT_DATA; ImageNet weights for the variant pretrained alone.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

TASKS = {
  'bc': {'name': 'bc', 'dir': f'{DATA}/BC'},
  'magnetic_tile': {'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile'},
  'elpv': {'name': 'elpv', 'dir': f'{DATA}/ELPV'},
  'deep_pcb': {'name': 'deep_pcb_pairs', 'dir': f'{DATA}/DeepPCB'},
}
SMOKE = {
  **{'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain', 'tone': 'dark'},
  **{'num_good': 14, 'num_defect': 6, 'size': 64},
}


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict(dict(TASKS.get(variant, TASKS['bc'])))
  c.data.image_size = (64, 64)
  c.data.interpolation = 'bilinear'
  if variant == 'elpv':
    c.data.grades = True

  c.split = ConfigDict()
  c.split.kind = 'good_only'  # shares of the good images; the others are the test's
  c.split.train = 0.56
  c.split.validation = 0.14
  c.split.max_test = config_dict.placeholder(int)

  c.calibration = ConfigDict()
  c.calibration.kind = 'split'
  c.calibration.folds = 0
  c.calibration.false_alarm_rate = 0.05

  c.pretrained = ConfigDict({'weights': '', 'dir': f'{DATA}/weights', 'stages': 3})

  c.method = ConfigDict()
  c.method.name = 'deep_svdd'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 1
  c.method.backbone = config_dict.placeholder(str)
  c.method.stages = config_dict.placeholder(int)
  c.method.channels = (32, 64, 128)
  c.method.kernel_size = 5
  c.method.embedding = 128
  c.method.weight_decay = 1e-6

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-4  # the published rate

  c.batch_size = 16
  c.steps = 600
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 200
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'pretrained':
    c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
    c.method.backbone, c.method.stages = 'resnet18', 3
    c.method.channels, c.method.kernel_size = (128,), 3
    c.steps = 200
  elif variant == 'smoke':
    c.data = ConfigDict(dict(SMOKE))
    c.data.image_size = (32, 32)
    c.data.interpolation = 'bilinear'
    c.calibration.false_alarm_rate = 0.5
    c.method.channels, c.method.embedding = (4, 8), 8
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant and variant not in TASKS:
    known = ', '.join((*TASKS, 'pretrained', 'smoke'))
    raise ValueError(f'deep_svdd_bc has no variant {variant!r}: {known}')
  return c
