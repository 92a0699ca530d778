"""MeDetection (Siamese network, coordinate attention, second-order MAML); target bottle caps.

Paper: Zhang et al. 2023, Table 3 (bottle caps: AUROC 92.4 from MAML, 86.8 from random weights).
Run:   python -m launch.train --config=configs/medetection_bc.py
       --config.method.first_order=True         first-order MAML
       --config.method.adapts=head              ANIL; with reset_head=True as the authors' code
       --config.steps=0                         no meta-learning: random weights
       --config=configs/medetection_bc.py:elpv  another target; it leaves the training tasks
Needs: the sets of TASKS below JAXDEFECT_DATA; nothing is pretrained.
Score: docs/results.md, generated from the runs.
"""

import os

from ml_collections import ConfigDict, config_dict

DATA = os.environ.get('JAXDEFECT_DATA', 'data')

# Target -> its tasks; a target leaves with all of them.
TASKS = {
  'bc': {'bc': {'name': 'bc', 'dir': f'{DATA}/BC'}},
  'magnetic_tile': {'magnetic_tile': {'name': 'magnetic_tile', 'dir': f'{DATA}/Magnetic-Tile'}},
  'elpv': {
    f'elpv_{cells}': {'name': 'elpv', 'dir': f'{DATA}/ELPV', 'cells': cells}
    for cells in ('mono', 'poly')
  },
  'deep_pcb': {'deep_pcb': {'name': 'deep_pcb_pairs', 'dir': f'{DATA}/DeepPCB'}},
  'neu': {
    f'neu_{kind}': {
      'name': 'box_crops',
      'source': 'neu_det',
      'dir': f'{DATA}/NEU-DET',
      'classes': (kind,),
    }
    for kind in ('scratches', 'inclusion', 'patches')
  },
}


def synthetic(*products: tuple[str, str, str]) -> dict[str, dict]:
  """Products of (texture, mark, tone), drawn when they are read; nothing to download."""
  return {
    f'synthetic_{texture}_{mark}_{tone}': {
      **{'name': 'synthetic_tasks', 'texture': texture},
      **{'mark': mark, 'tone': tone},
    }
    for texture, mark, tone in products
  }


SYNTHETIC = synthetic(
  ('woven', 'stain', 'dark'),
  ('cast', 'hole', 'dark'),
  ('rolled', 'scratch', 'bright'),
  ('lathed', 'stain', 'bright'),
)
HELD_BACK = synthetic(('printed', 'hole', 'bright'), ('ribbed', 'scratch', 'dark'))


def get_config(variant: str = '') -> ConfigDict:
  target = variant if variant in TASKS else 'bc'
  c = ConfigDict()
  c.data = ConfigDict(dict(next(iter(TASKS[target].values()))))
  c.data.image_size = (128, 128)  # paper: 256
  c.data.interpolation = 'bilinear'
  if target == 'elpv':
    del c.data.cells  # both kinds of cells

  c.split = ConfigDict()
  c.split.kind = 'fraction'  # of the target: 70 % to fine-tune on, a fifth of these to choose
  c.split.train = 0.56
  c.split.validation = 0.14
  c.split.max_test = config_dict.placeholder(int)

  others = {
    name: one for key, group in TASKS.items() if key != target for name, one in group.items()
  }
  c.tasks = ConfigDict({**others, **SYNTHETIC})
  c.validation_tasks = ConfigDict(HELD_BACK)  # on which rates and numbers of steps are chosen

  c.episodes = ConfigDict()
  c.episodes.tasks_per_step = 4
  c.episodes.support = 16  # paper: 64
  c.episodes.query = 16  # paper: 20
  c.episodes.references = 1
  c.episodes.support_fraction = 0.7
  c.episodes.images_per_task = config_dict.placeholder(int)  # 20 for the 20-shot column

  c.pretrained = ConfigDict({'weights': '', 'dir': '', 'stages': 0})

  c.method = ConfigDict()
  c.method.name = 'medetection'
  c.method.dtype = 'float32'  # of the computation; bfloat16 halves its memory
  c.method.accumulate = 4  # task after task: on a CPU 1.6 times as fast; on a GPU 1
  c.method.siamese = True
  c.method.attention = config_dict.placeholder(str)
  c.method.attention = 'low'
  c.method.inner_rate = 0.01  # chosen on the tasks held back, after 40 steps
  c.method.inner_steps = 1
  c.method.first_order = False
  c.method.adapts = 'all'
  c.method.reset_head = False
  c.method.inner_rates = 'fixed'  # or per_parameter, per_step: meta-learned
  c.method.fine_tune_rate = 1e-3
  c.method.fine_tune_epochs = 40
  c.method.patience = 10
  c.method.references = 4
  c.method.nearest = config_dict.placeholder(int)
  c.method.augmentation = ConfigDict(
    {'crop_scale': (0.8, 1.0), 'quarter_turns': False, 'brightness': 0.2, 'contrast': 0.2}
  )

  c.optimizer = ConfigDict()
  c.optimizer.name = 'adam'
  c.optimizer.learning_rate = 1e-3
  c.optimizer.b1 = 0.5

  c.batch_size = 32  # of evaluation
  c.steps = 600
  c.references_per_class = 0  # 0: all training images of the target
  c.seeds = (0,)
  c.devices = 1

  c.log_every = 10
  c.checkpoint_every = 100
  c.evaluate_every = 0
  c.best = ''
  c.pictures = 12
  c.tensorboard = False

  if variant == 'smoke':
    c.data = ConfigDict(dict(HELD_BACK['synthetic_printed_hole_bright']))
    c.data.num_good, c.data.num_defect, c.data.size = 10, 10, 64
    c.data.image_size = (32, 32)
    c.data.interpolation = 'bilinear'
    small = {'num_good': 8, 'num_defect': 8, 'size': 64}
    c.tasks = ConfigDict({name: {**one, **small} for name, one in SYNTHETIC.items()})
    c.validation_tasks = ConfigDict()
    c.split.train, c.split.validation = 0.4, 0.2
    c.episodes.tasks_per_step, c.episodes.support, c.episodes.query = 1, 4, 4
    c.method.accumulate = 1
    c.method.width, c.method.blocks, c.method.fine_tune_epochs = 8, 2, 2
    c.batch_size, c.steps, c.checkpoint_every, c.pictures = 8, 2, 2, 2
  elif variant and variant not in TASKS:
    raise ValueError(f'medetection_bc has no variant {variant!r}: {", ".join(TASKS)}, smoke')
  return c
