"""Nearest good image on bottle caps: pretrained features, or features learned from good parts.

Paper: Zhang et al. 2023, Table 2, '1-NN' (MVTec AD: AUROC 83.9).
Run:   python -m launch.train --config=configs/nearest_neighbor_bc.py
       --config=configs/nearest_neighbor_bc.py:magnetic_tile    another product; also elpv, deep_pcb
       --config=configs/nearest_neighbor_bc.py:self_supervised  NT-Xent from random weights, without
                                                                a label; also self_supervised_elpv
       --config.pretrained.weights=                             random features
Needs: the sets below JAXDEFECT_DATA and ImageNet weights (JAXDEFECT_DATA/weights).
Score: docs/results.md, generated from the runs. A self-supervised step takes 1.7 CPU-seconds.
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


SELF_SUPERVISED = 'self_supervised'


def get_config(variant: str = '') -> ConfigDict:
  learns = variant == SELF_SUPERVISED or variant.startswith(f'{SELF_SUPERVISED}_')
  target = variant.removeprefix(SELF_SUPERVISED).removeprefix('_') if learns else variant
  c = ConfigDict()
  c.data = ConfigDict(TARGETS.get(target, TARGETS['bc']))
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
  c.method.name = 'nearest_neighbor'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.width = 64
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.neighbours = 1
  c.method.projection = (256, 128)
  c.method.temperature = 0.5
  c.method.augmentation = ConfigDict({'crop_scale': (0.5, 1.0), 'brightness': 0.2, 'contrast': 0.2})

  c.optimizer = ConfigDict()  # where there are steps
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-3
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 0

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

  if learns:
    c.data.image_size = (128, 128)
    c.pretrained.weights = ''
    c.method.update_statistics = True
    c.optimizer.warmup_steps = 20
    c.batch_size, c.steps = 32, 200

  if variant == 'smoke':
    c.data = ConfigDict({'name': 'synthetic_tasks', 'texture': 'woven', 'mark': 'stain'})
    c.data.tone, c.data.num_good, c.data.num_defect, c.data.size = 'dark', 14, 6, 64
    c.data.image_size, c.data.interpolation = (32, 32), 'bilinear'
    c.calibration.false_alarm_rate = 0.5
    c.pretrained.weights = ''
    c.method.stages, c.method.width, c.method.update_statistics = 1, 8, True
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 8, 2, 2, 2
  elif variant not in ('', SELF_SUPERVISED) and target not in TARGETS:
    known = [*TARGETS, SELF_SUPERVISED, *(f'{SELF_SUPERVISED}_{name}' for name in TARGETS)]
    raise ValueError(f'nearest_neighbor_bc has no variant {variant!r}: {", ".join(known)}, smoke')
  return c
