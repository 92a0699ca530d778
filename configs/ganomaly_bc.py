"""GANomaly on the bottle caps: what cannot be encoded again after reconstruction is anomalous.

Paper: Akcay et al. 2018 (arXiv:1805.06725); Zhang et al. 2023, Table 2, compares with it.
Run:   python -m launch.train --config=configs/ganomaly_bc.py
       --config.method.width=64                  the published width, about four times the time
       --config=configs/ganomaly_bc.py:elpv      another product
Needs: the sets of TASKS below JAXDEFECT_DATA; nothing is pretrained.
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
  c.data.image_size = (64, 64)  # square, a power of two
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

  c.pretrained = ConfigDict({'weights': '', 'dir': '', 'stages': 0})

  c.method = ConfigDict()
  c.method.name = 'ganomaly'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 1
  c.method.latent = 100
  c.method.width = 32  # paper: 64
  c.method.adversarial_weight = 1.0
  c.method.reconstruction_weight = 50.0
  c.method.latent_weight = 1.0
  c.method.sigma = 2.0

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 2e-4
  c.optimizer.b1 = 0.5

  c.batch_size = 16  # paper: 64
  c.steps = 1000
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 200
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data = ConfigDict(dict(SMOKE))
    c.data.image_size = (32, 32)
    c.data.interpolation = 'bilinear'
    c.calibration.false_alarm_rate = 0.5
    c.method.latent, c.method.width = 6, 4
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant and variant not in TASKS:
    raise ValueError(f'ganomaly_bc has no variant {variant!r}: {", ".join(TASKS)}, smoke')
  return c
