r"""PatchCore on your own product: good pictures, and folders of defective ones where there are any.

Paper: Roth et al. 2022; docs/results.md has it on four public products.
Run:   python -m launch.train --config=configs/patchcore_folder.py \
           --config.data.dir=products/cap --config.pretrained.weights=resnet18.pth
       --config.calibration.false_alarm_rate=0.02    needs 49 good pictures among those that fit
       --config.calibration.folds=0                  leave one out, for a handful of pictures
Needs: some 30 pictures in DIR/good (png, jpg, tif, bmp), and ImageNet weights: a torchvision file.
       Every other folder in DIR is a kind of defect and is only tested.
Score: depends on the product; report.html shows it with its interval.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'product'
  c.data.dir = ''
  c.data.needs_defects = False
  c.data.image_size = (256, 256)
  c.data.interpolation = 'bilinear'
  c.data.sixteen_bit_range = (0, 65535)  # gray levels that are black and white; 12 bits: (0, 4095)
  c.data.lots = ''  # CSV file with the columns image and lot
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'good_only'
  c.split.train = 0.7
  c.split.validation = 0.0  # the pictures that fit calibrate too, each by a fit without it
  c.split.max_test = config_dict.placeholder(int)

  c.calibration = ConfigDict()
  c.calibration.kind = 'cross'
  c.calibration.folds = 5
  c.calibration.false_alarm_rate = 0.05

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18'
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
    c.data.image_size = (32, 32)
    c.calibration.folds, c.calibration.false_alarm_rate = 2, 0.5
    c.pretrained.weights = ''
    c.method.stages, c.method.layers, c.method.width = 2, (1, 2), 8
    c.batch_size, c.pictures = 8, 2
  elif variant:
    raise ValueError(f'patchcore_folder has no variant {variant!r}: smoke')
  return c
