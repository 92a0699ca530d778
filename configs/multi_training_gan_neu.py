"""Multi-training with a categorised GAN on NEU, k images per class.

Paper: He et al. 2019 (Optics and Lasers in Engineering 122, 294-302: 99.56 % on NEU); Phuong et al.
       2024, Table II, compares with it ('SSL/GAN multi-training').
Run:   python -m launch.train --config=configs/multi_training_gan_neu.py --config.data.dir=NEU-DET
       --config.split.per_class=20                another k
       --config=configs/multi_training_gan_neu.py:percent --config.split.train=0.6
Needs: the NEU-DET folder and ImageNet weights (JAXDEFECT_DATA/weights, or pretrained.dir).
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'neu'
  c.data.dir = f'{DATA}/NEU-DET'
  c.data.image_size = (160, 160)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # what launch.cross_validate set aside; '' is hold_out.json in dir

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 10
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = 'resnet18-imagenet-layer3-bnfolded'  # the start of classifier_neu
  c.pretrained.dir = f'{DATA}/weights'
  c.pretrained.stages = 3

  c.method = ConfigDict()
  c.method.name = 'multi_training_gan'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet18'
  c.method.stages = 3
  c.method.frozen_stages = 2  # half the time of 1
  c.method.update_statistics = False  # the weights have BatchNorm folded in
  c.method.gan_size = 64
  c.method.gan_width = 32  # the default 64 takes about four times the time
  c.method.latent = 100
  c.method.gan_optimizer = ConfigDict({'learning_rate': 2e-4, 'b1': 0.5})  # DCGAN's
  c.method.confidence = 0.9
  c.method.pseudo_weight = 1.0
  c.method.pseudo_from = 500  # at 200 steps the made pictures are noise
  c.method.augmentation = ConfigDict({'crop_scale': (0.5, 1.0)})

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 5e-4
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 10

  c.batch_size = 32
  c.steps = 1000
  c.references_per_class = 0  # 0: all training images
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 100
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'percent':
    c.split = ConfigDict({'kind': 'fraction', 'train': 0.6})
    c.split.max_test = config_dict.placeholder(int)
    c.steps = 1500
  elif variant == 'smoke':
    c.data.image_size = (32, 32)
    c.split.per_class = 2
    c.split.max_test = 12
    c.pretrained.weights = ''
    c.method.stages, c.method.frozen_stages = 2, 0
    c.method.gan_size, c.method.gan_width, c.method.latent = 16, 4, 6
    c.method.confidence, c.method.pseudo_from = 0.2, 1
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'multi_training_gan_neu has no variant {variant!r}: percent, smoke')
  return c
