"""Uninformed Students on the bottle caps; their teacher is distilled on the good caps at hand.

Paper: Bergmann et al. 2020 (MVTec AD, fields 17, 33 and 65; AUROC 92.5 of images in Table 2 of
       Zhang et al. 2023). There the teacher is distilled on ImageNet, which is not needed here.
Run:   python -m launch.train --config=configs/uninformed_students_bc.py
       --config=configs/uninformed_students_bc.py:elpv   another product
       --config.method.fields='(17, 33, 65)'             the paper's fields, for a GPU
Needs: the sets of TASKS below JAXDEFECT_DATA and ImageNet weights (JAXDEFECT_DATA/weights).
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
  c.data.image_size = (256, 256)
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
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'uninformed_students'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.width = 64
  c.method.fields = (33,)  # paper: 17, 33 and 65
  c.method.students = 3
  c.method.features = 32  # paper: 128
  c.method.channels = 16  # paper: 128
  c.method.stride = 4  # paper: 1
  c.method.window = config_dict.placeholder(int)
  c.method.window = 12
  c.method.teacher_steps = 200
  c.method.teacher_rate = 1e-3
  c.method.teacher_crops = 4
  c.method.teacher_size = 64
  c.method.compactness = 1.0
  c.method.expectation = 'training'  # the validation part sets the threshold
  c.method.sigma = 0.0

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-3
  c.optimizer.schedule = 'cosine'

  c.batch_size = 16
  c.steps = 600
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 600
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
    c.method.stages, c.method.width, c.method.fields = 1, 8, (17,)
    c.method.students, c.method.features, c.method.channels = 2, 8, 4
    c.method.window, c.method.teacher_steps, c.method.teacher_size = 3, 2, 16
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 4, 2, 2, 2
  elif variant and variant not in TASKS:
    raise ValueError(
      f'uninformed_students_bc has no variant {variant!r}: {", ".join(TASKS)}, smoke'
    )
  return c
