r"""WaferSegClassNet on MixedWM38 (wafer maps, 38 patterns), 20 per class.

Paper: Nag et al. 2022 (98.2 % on 38 classes with 80 % of the whole set for training, Dice 0.9999;
       on a part of the set, with 20 per class, the problem is another).
Run:   python -m launch.train --config=configs/wafer_seg_class_net_mixedwm38.py \
           --config.data.dir=FOLDER
Needs: the official npz (or a part) in FOLDER; no weights, it starts from random ones.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'mixedwm38'
  c.data.dir = f'{DATA}/MixedWM38-subset'
  c.data.image_size = (52, 52)  # a pixel per cell; the paper's 224 x 224 are uneven cells
  c.data.interpolation = 'nearest'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 20
  c.split.validation_per_class = 0
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict({'weights': '', 'dir': f'{DATA}/weights', 'stages': 4})

  c.method = ConfigDict()
  c.method.name = 'wafer_seg_class_net'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.width = 8
  # BatchNorm predicts with the statistics of what dropout left: in a run of this length that costs
  # more than dropout gains (docstring of the method).
  c.method.dropout = 0.0
  c.method.pretrain_steps = 500
  # Turns and mirrors move cells and mix none.
  c.method.augmentation = ConfigDict({'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 3e-3
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 20

  c.batch_size = 32
  c.steps = 2000
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 50
  c.checkpoint_every = 500
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data.image_size = (26, 26)
    c.split.per_class = 1
    c.split.max_test = 40
    c.method.width, c.method.pretrain_steps = 2, 1
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
    c.log_every = 1
  elif variant:
    raise ValueError(f'wafer_seg_class_net_mixedwm38 has no variant {variant!r}: smoke')
  return c
