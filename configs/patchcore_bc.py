"""PatchCore on bottle caps: a bank of patches of good parts; nothing is trained.

Paper: Roth et al. 2022 (MVTec AD: AUROC 99.1 with WideResNet-50 and 25 % kept).
Run:   python -m launch.train --config=configs/patchcore_bc.py
       --config=configs/patchcore_bc.py:magnetic_tile    another product; also elpv, deep_pcb
       --config.method.coreset=0.01 --config.method.reweight=False
       --config.method.bank_size=40000           all of the 10 %
       --config.pretrained.weights=              random features
       --config.pretrained.weights=RUN           features of a finished run
Needs: the sets below JAXDEFECT_DATA and ImageNet weights (JAXDEFECT_DATA/weights).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

TARGETS = {
  'bc': {'name': 'bc', 'dir': f'{DATA}/BC', 'image_size': (256, 256)},
  'magnetic_tile': {
    **{'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile', 'image_size': (256, 256)},
  },
  'elpv': {'name': 'elpv', 'dir': f'{DATA}/ELPV', 'image_size': (256, 256), 'grades': True},
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
  c.method.name = 'patchcore'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.width = 64
  c.method.layers = (2, 3)
  c.method.neighbourhood = 3
  c.method.coreset = config_dict.placeholder(float)
  c.method.coreset = 0.1
  c.method.bank_size = config_dict.placeholder(int)
  c.method.bank_size = 10_000  # 10 % of 400 images would be 40,000, four times as slow
  c.method.projection = 128
  c.method.reweight = True
  c.method.neighbours = 9
  c.method.sigma = 4.0
  c.method.devices = 1  # over which the bank is spread

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
    c.method.stages, c.method.layers, c.method.width = 2, (1, 2), 8
    c.batch_size, c.pictures = 8, 2
  elif variant and variant not in TARGETS:
    raise ValueError(f'patchcore_bc has no variant {variant!r}: {", ".join(TARGETS)}, smoke')
  return c
