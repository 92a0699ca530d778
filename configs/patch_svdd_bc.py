"""Patch SVDD on the bottle caps: an encoder of patches, taught by good parts alone.

Paper: Yi & Yoon 2020 (MVTec AD: AUROC 92.1 of images, 95.7 of pixels).
Run:   python -m launch.train --config=configs/patch_svdd_bc.py
       --config=configs/patch_svdd_bc.py:magnetic_tile   another product; also elpv, deep_pcb
       --config.data.image_size='(256, 256)' --config.method.patch_size=64
       --config.method.strides='(16, 4)'                 the paper's sizes, for a GPU
Needs: the sets of TASKS below JAXDEFECT_DATA; nothing is pretrained.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

TASKS = {
  'bc': {'name': 'bc', 'dir': f'{DATA}/BC'},
  'magnetic_tile': {'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile'},
  'elpv': {'name': 'elpv', 'dir': f'{DATA}/ELPV', 'grades': True},
  'deep_pcb': {'name': 'deep_pcb_pairs', 'dir': f'{DATA}/DeepPCB'},
}


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict(dict(TASKS.get(variant, TASKS['bc'])))
  c.data.image_size = (128, 128)  # paper: 256
  c.data.interpolation = 'bilinear'

  c.split = ConfigDict()
  c.split.kind = 'good_only'  # shares of the good images; the others are the test's
  c.split.train = 0.56
  c.split.validation = 0.14
  c.split.max_test = config_dict.placeholder(int)

  c.calibration = ConfigDict()
  c.calibration.kind = 'split'
  c.calibration.folds = 0
  c.calibration.false_alarm_rate = 0.05

  c.pretrained = ConfigDict()
  c.pretrained.weights = ''
  c.pretrained.dir = ''
  c.pretrained.stages = 0

  c.method = ConfigDict()
  c.method.name = 'patch_svdd'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 1
  c.method.patch_size = 32  # and 16; paper: 64 and 32 of 256 pixels
  c.method.strides = (16, 8)  # paper: 16 and 4
  c.method.features = 64
  c.method.width = 128
  c.method.pairs = 4
  c.method.svdd_weight = 1e-3
  c.method.noise = 0.02

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-3
  c.optimizer.schedule = 'cosine'

  c.batch_size = 16
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

  if variant == 'smoke':
    c.data = ConfigDict({'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain'})
    c.data.tone, c.data.num_good, c.data.num_defect, c.data.size = 'dark', 14, 6, 64
    c.data.image_size, c.data.interpolation = (32, 32), 'bilinear'
    c.calibration.false_alarm_rate = 0.5
    c.pretrained.weights, c.pretrained.stages = '', 0
    c.method.patch_size, c.method.strides = 16, (8, 4)
    c.method.features, c.method.width, c.method.pairs = 8, 8, 2
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant and variant not in TASKS:
    raise ValueError(f'patch_svdd_bc has no variant {variant!r}: {", ".join(TASKS)}, smoke')
  return c
