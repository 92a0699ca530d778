"""The practitioner's way on your own pictures: one folder per failure mode, and good/.

A pretrained network whose last stage is trained, augmentation that keeps what a defect is, and
PatchCore beside it as long as a mode has fewer than 30 confirmed samples.

Paper: source P, which takes EfficientNet-B3. Without its file the network is MobileNetV2; the page
       says under 'start weights' which one it was.
Run:   python -m launch.train --config=configs/hybrid_folder.py --config.data.dir=PICTURES \
           --config.pretrained.weights=mobilenet_v2.pth
       --config=configs/hybrid_folder.py:efficientnet_b3 \
           --config.pretrained.weights=efficientnet_b3.pth     also efficientnet_b0
       --config.split.per_class=20     train on fewer of each mode, test on more
Needs: PICTURES/good/ with some 30 pictures, PICTURES/<mode>/ with at least one more than train, and
       ImageNet weights: a torchvision file. First set some aside: launch.cross_validate.
Score: docs/results.md has the rule on two public products (table E3).
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

BACKBONES = ('mobilenet_v2', 'efficientnet_b0', 'efficientnet_b3')


def get_config(variant: str = '') -> ConfigDict:
  backbone = variant if variant in BACKBONES else 'mobilenet_v2'
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'folder'
  c.data.dir = 'pictures'
  c.data.image_size = (224, 224)
  c.data.interpolation = 'bilinear'
  c.data.sixteen_bit_range = (0, 65535)  # gray levels that are black and white; 12 bits: (0, 4095)
  c.data.lots = ''  # CSV file with the columns image and lot
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_defects'
  c.split.train = 0.7  # of the good parts
  c.split.validation = 0.0  # the good parts that train calibrate too, each by a bank without it
  c.split.per_class = 10
  c.split.max_test = config_dict.placeholder(int)

  c.calibration = ConfigDict()
  c.calibration.kind = 'cross'
  c.calibration.folds = 5
  c.calibration.false_alarm_rate = 0.1

  c.pretrained = ConfigDict()
  c.pretrained.weights = backbone
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 4

  c.method = ConfigDict()
  c.method.name = 'hybrid'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = backbone
  c.method.stages = 4
  c.method.update_statistics = False  # from ten pictures they would be worse
  c.method.min_confirmed = 30
  c.method.augmentation = ConfigDict({'crop_scale': (0.8, 1.0)})
  c.method.augmentation.angle = 180.0  # turned freely
  c.method.augmentation.angle_limits = ConfigDict()  # {'scratch': 15.0}: of a directional class
  c.method.augmentation.elastic = 0.02
  c.method.augmentation.brightness = 0.1
  c.method.augmentation.contrast = 0.1
  c.method.supervised = ConfigDict({'name': 'classifier', 'frozen_stages': 3})
  c.method.supervised.balance_classes = True
  c.method.anomaly = ConfigDict({'name': 'patchcore', 'layers': (2, 3), 'coreset': 0.1})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 16
  c.steps = 150
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 25
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data.image_size = (32, 32)
    c.split.per_class = 2
    c.calibration.folds, c.calibration.false_alarm_rate = 2, 0.3
    c.pretrained.weights = ''
    c.method.backbone, c.method.stages = 'resnet18', 2
    c.method.supervised.frozen_stages, c.method.anomaly.layers = 0, (1, 2)
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant and variant not in BACKBONES:
    raise ValueError(f'hybrid_folder has no variant {variant!r}: {", ".join(BACKBONES)}, smoke')
  return c
