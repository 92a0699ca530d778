"""Cross-entropy baseline on the embedded synthetic set: no files, no weights.

Run:   python -m launch.train --config=configs/classifier_synthetic.py
Time:  a few minutes on two cores.
Score: see README.md ('make train' runs the contrastive_margin one).
"""

from ml_collections import ConfigDict, config_dict


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'synthetic'
  c.data.num_per_class = 400
  c.data.size = 128
  c.data.seed = 0
  c.data.image_size = (128, 128)
  c.data.interpolation = 'bilinear'
  c.data.hold_out = ''  # file of what launch.cross_validate set aside

  c.split = ConfigDict()
  c.split.kind = 'few_shot'
  c.split.per_class = 300
  c.split.max_test = config_dict.placeholder(int)

  c.pretrained = ConfigDict()
  c.pretrained.weights = ''  # start from random weights
  c.pretrained.dir = ''
  c.pretrained.stages = config_dict.placeholder(int)

  c.method = ConfigDict()
  c.method.name = 'classifier'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.remat = False
  c.method.accumulate = 1
  c.method.backbone = 'resnet10'  # slim, as it starts from nothing and has minutes
  c.method.width = 16
  c.method.stages = 4
  c.method.augmentation = ConfigDict(
    {'crop_scale': (0.9, 1.0), 'brightness': 0.15, 'contrast': 0.15}
  )

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 3e-3
  c.optimizer.schedule = 'cosine'
  c.optimizer.warmup_steps = 50

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

  if variant == 'smoke':
    c.data.num_per_class = 6
    c.data.image_size = (32, 32)
    c.split.per_class = 2
    c.split.max_test = 12
    c.method.stages = 2
    c.optimizer.warmup_steps = 0
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 6, 2, 2, 2
  elif variant:
    raise ValueError(f'classifier_synthetic has no variant {variant!r}: smoke')
  return c
