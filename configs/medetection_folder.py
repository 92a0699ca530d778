"""MeDetection on your own products: a folder each, with good/ and a folder per kind of defect.

Paper: Zhang et al. 2023; docs/results.md has it on bottle caps.
Run:   python -m launch.train --config=configs/medetection_folder.py
       --config.data.dir=products/cap        the product that is to be judged
       --config.tasks.products.dir=products  the others, where there are any; the target is left out
Needs: nothing else: six synthetic products are learned from as well.
Score: depends on the products; report.html shows it with its interval.
"""

from ml_collections import ConfigDict, config_dict

SYNTHETIC = (
  ('woven', 'stain', 'dark'),
  ('cast', 'hole', 'dark'),
  ('rolled', 'scratch', 'bright'),
  ('lathed', 'stain', 'bright'),
  ('printed', 'hole', 'bright'),
  ('ribbed', 'scratch', 'dark'),
)


def get_config(variant: str = '') -> ConfigDict:
  c = ConfigDict()
  c.data = ConfigDict()
  c.data.name = 'product'
  c.data.dir = ''
  c.data.image_size = (128, 128)
  c.data.interpolation = 'bilinear'
  c.data.sixteen_bit_range = (0, 65535)  # gray levels that are black and white; 12 bits: (0, 4095)

  c.split = ConfigDict()
  c.split.kind = 'fraction'
  c.split.train = 0.56
  c.split.validation = 0.14  # chooses the epoch of the fine-tuning
  c.split.max_test = config_dict.placeholder(int)

  c.tasks = ConfigDict()
  for texture, mark, tone in SYNTHETIC:
    c.tasks[f'{texture}_{mark}_{tone}'] = ConfigDict(
      {'name': 'synthetic_tasks', 'texture': texture, 'mark': mark, 'tone': tone}
    )
  c.tasks.products = ConfigDict({'name': 'product', 'dir': '', 'every': True})
  c.validation_tasks = ConfigDict()

  c.episodes = ConfigDict()
  c.episodes.tasks_per_step = 4
  c.episodes.support = 16
  c.episodes.query = 16
  c.episodes.references = 1
  c.episodes.support_fraction = 0.7
  c.episodes.images_per_task = config_dict.placeholder(int)

  c.pretrained = ConfigDict({'weights': '', 'dir': '', 'stages': 0})

  c.method = ConfigDict()
  c.method.name = 'medetection'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 4  # task after task: on a CPU 1.6 times as fast; on a GPU 1
  c.method.attention = config_dict.placeholder(str)
  c.method.attention = 'low'
  c.method.inner_rate = 0.01
  c.method.inner_steps = 1
  c.method.fine_tune_rate = 1e-3
  c.method.fine_tune_epochs = 40
  c.method.patience = 10
  c.method.references = 4
  c.method.nearest = config_dict.placeholder(int)  # 1 to 4 where parts lie in any position
  c.method.augmentation = ConfigDict(
    {'crop_scale': (0.8, 1.0), 'quarter_turns': False, 'brightness': 0.2, 'contrast': 0.2}
  )

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-3
  c.optimizer.b1 = 0.5

  c.batch_size = 32
  c.steps = 200
  c.references_per_class = 0
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
    c.tasks = ConfigDict({'products': {'name': 'product', 'dir': '', 'every': True}})
    c.split.train, c.split.validation = 0.4, 0.2
    c.episodes.tasks_per_step, c.episodes.support, c.episodes.query = 1, 4, 4
    c.method.accumulate = 1
    c.method.width, c.method.blocks, c.method.fine_tune_epochs = 8, 2, 2
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 8, 2, 2, 2
  elif variant:
    raise ValueError(f'medetection_folder has no variant {variant!r}: smoke')
  return c
