"""No program of a whole run on real pictures is compiled twice.

Not for a short last batch, nor another number of boxes, nor the second evaluation.
"""

import collections
import importlib
import re

import jax
import pytest

from launch import train

pytest.importorskip('jaxdefect.methods.classifier')
pytest.importorskip('jaxdefect.methods.faster_rcnn')

SMALL = {
  'classifier_neu': {
    **{'data.image_size': (64, 64), 'method.stages': 1, 'pretrained.stages': 1},
    **{'method.frozen_stages': 1},
    **{'split.per_class': 5, 'split.validation_per_class': 3, 'split.max_test': 35},
    **{
      'optimizer.warmup_steps': 0,
      'steps': 9,
      'evaluate_every': 3,
      'batch_size': 8,
      'pictures': 0,
    },
  },
  'faster_rcnn_neu_det': {
    **{'split.train': 0.02, 'split.validation': 0.005, 'split.max_test': 7},
    **{'method.neck': 'fpn', 'method.box_head': 'mlp'},
    **{'method.deformable': None, 'method.head_width': 16, 'sampling_layer': ''},
    **{'steps': 6, 'evaluate_every': 3, 'batch_size': 4, 'pictures': 0},
  },
}


@pytest.mark.parametrize('name', SMALL)
def test_a_run_compiles_each_program_once(name, data_dir, tmp_path, caplog):
  variant = '' if 'pretrained.stages' in SMALL[name] else 'smoke'
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  config.update_from_flattened_dict(SMALL[name])
  config.data.dir = str(data_dir / 'NEU-DET')
  if variant == '':
    config.pretrained.dir = str(data_dir / 'weights')
  with jax.log_compiles(), caplog.at_level('WARNING', 'jax'):
    train.train_seeds(config, tmp_path / 'run', progress=False)
  compiled = collections.Counter(
    match.group(1)
    for record in caplog.records
    if (match := re.match(r'Compiling jit\((\w+)\) with', record.getMessage()))
  )
  ours = [compiled[name] for name in ('train_step', 'reduced', 'predict')]
  assert ours in ([1, 1, 1], [1, 1, 0]), compiled
