"""PaDiM on bottle caps: a Gaussian of good parts for every place; nothing is trained.

Paper: Defard et al. 2020 (MVTec AD: pixel AUROC 97.5 with Wide-ResNet-50).
Run:   python -m launch.train --config=configs/padim_bc.py
       --config=configs/padim_bc.py:magnetic_tile    another product; also elpv, deep_pcb
       --config.pretrained.weights=                  random features
       --config.pretrained.weights=RUN               features of a finished run
Needs: the sets below JAXDEFECT_DATA and ImageNet weights (JAXDEFECT_DATA/weights).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

TARGETS = {
  'bc': {'name': 'bc', 'dir': f'{DATA}/BC', 'image_size': (224, 224)},
  'magnetic_tile': {
    **{'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile', 'image_size': (224, 224)},
  },
  'elpv': {'name': 'elpv', 'dir': f'{DATA}/ELPV', 'image_size': (224, 224), 'grades': True},
  'deep_pcb': {'name': 'deep_pcb_pairs', 'dir': f'{DATA}/DeepPCB', 'image_size': (128, 128)},
}


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict(TARGETS.get(variant, TARGETS['bc']))
  c.data.interpolation = 'bilinear'

  c.split = ConfigDict()
  c.split.kind = 'good_only'
  c.split.train = 0.56
  c.split.validation = 0.14
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
  c.method.name = 'padim'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.backbone = 'resnet18'
  c.method.width = 64
  c.method.layers = (1, 2, 3)
  c.method.dimensions = 100
  c.method.regularization = 0.01
  c.method.sigma = 4.0

  c.optimizer = ConfigDict({'name': 'adam', 'learning_rate': 1e-3})  # not used

  c.batch_size = 16
  c.steps = 0
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
    c.data = ConfigDict({'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain'})
    c.data.tone, c.data.num_good, c.data.num_defect, c.data.size = 'dark', 14, 6, 64
    c.data.image_size, c.data.interpolation = (32, 32), 'bilinear'
    c.calibration.false_alarm_rate = 0.5
    c.pretrained.weights = ''
    c.method.layers, c.method.width, c.method.dimensions = (1, 2), 8, 10
    c.batch_size, c.pictures = 8, 2
  elif variant and variant not in TARGETS:
    raise ValueError(f'padim_bc has no variant {variant!r}: {", ".join(TARGETS)}, smoke')
  return c
