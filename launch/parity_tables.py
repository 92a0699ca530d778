"""The table of what leaves JAX: every method on real pictures in PyTorch and ONNX Runtime."""

import json
import pathlib
from typing import Any

from launch.grid import Cell, Column, Table

PICTURES = 60
_FEW = {'split.max_test': 120}
# Method -> config, what is shortened (YOLO is the run of X6), the figure, and what it is called.
_RUNS: dict[str, tuple[str, dict[str, Any], str, str]] = {
  'anomaly_dino': ('anomaly_dino_bc:resnet18', _FEW, 'auroc', 'bottle caps, AUROC'),
  'casi_net': ('casi_net_neu', {**_FEW, 'steps': 60}, 'accuracy', 'NEU steel, accuracy'),
  'classifier': ('classifier_bc', {**_FEW, 'steps': 60}, 'accuracy', 'bottle caps, accuracy'),
  'contrastive_margin': ('contrastive_margin_neu', _FEW, 'accuracy', 'NEU steel, accuracy'),
  'dc_net': ('dc_net_mixedwm38', {**_FEW, 'steps': 200}, 'accuracy', 'MixedWM38, accuracy'),
  'deep_svdd': ('deep_svdd_bc', {**_FEW, 'steps': 100}, 'auroc', 'bottle caps, AUROC'),
  'faster_rcnn': ('faster_rcnn_neu_det', {**_FEW, 'steps': 600}, 'map50', 'NEU-DET, mAP@0.5'),
  'ganomaly': ('ganomaly_bc', {**_FEW, 'steps': 100}, 'auroc', 'bottle caps, AUROC'),
  'hybrid': ('hybrid_bc', {**_FEW, 'steps': 30}, 'miss_rate', 'bottle caps, misses'),
  'medetection': ('medetection_bc', {**_FEW, 'steps': 20}, 'auroc', 'bottle caps, AUROC'),
  'multi_training_gan': (
    *('multi_training_gan_neu', {**_FEW, 'steps': 30, 'method.pseudo_from': 15}, 'accuracy'),
    'NEU steel, accuracy',
  ),
  'nearest_neighbor': ('nearest_neighbor_bc', _FEW, 'auroc', 'bottle caps, AUROC'),
  'padim': ('padim_bc', _FEW, 'auroc', 'bottle caps, AUROC'),
  'patch_svdd': ('patch_svdd_bc', {**_FEW, 'steps': 60}, 'auroc', 'bottle caps, AUROC'),
  'patchcore': ('patchcore_bc', _FEW, 'auroc', 'bottle caps, AUROC'),
  'siamese_one_shot': (
    'siamese_one_shot_neu',
    {**_FEW, 'steps': 100},
    'accuracy',
    'NEU steel, accuracy',
  ),
  'spade': ('spade_bc', _FEW, 'auroc', 'bottle caps, AUROC'),
  'uninformed_students': (
    'uninformed_students_bc',
    {**_FEW, 'steps': 60},
    'auroc',
    'bottle caps, AUROC',
  ),
  'wafer_seg_class_net': (
    *('wafer_seg_class_net_mixedwm38', {**_FEW, 'steps': 200}, 'accuracy'),
    'MixedWM38, accuracy',
  ),
  'yolo': ('yolo_neu_det', {}, 'map50', 'NEU-DET, mAP@0.5'),  # of 200 steps it finds nothing
}

TABLES: dict[str, Table] = {
  'P1': Table(
    'Does the exported model say the same? Every method in PyTorch and ONNX',
    f'{PICTURES} test pictures, evenly over the test part (most rows keep at most 120 of it), as '
    'they were read from their files: resizing is part of what is exported, and its pixels are '
    'ours to the last bit in every row (otherwise `launch.convert` would have written nothing). '
    'Differences are shares of the number, or of the root mean square of its kind where it is '
    'smaller, in millionths; of boxes they are thousandths of a pixel of the picture. '
    'Where training takes steps, they are few: the figures are not those of the methods (see their '
    'tables), but have to be the same on all sides. ms: one picture at a time with reading and '
    'decoding it, on two cores that other work shared.',
    1,
    tuple(
      Cell(row, column, config, overrides, metric, shots='parity')
      for row, (config, overrides, metric, column) in _RUNS.items()
    ),
    metrics=(
      Column('scores, PyTorch, 1e-6', 'torch/largest', percent=False, factor=1e6),
      Column('ONNX', 'onnx/largest', percent=False, factor=1e6),
      Column('boxes, PyTorch, 1e-3 pixels', 'torch/boxes', percent=False, factor=1000),
      Column('ONNX', 'onnx/boxes', percent=False, factor=1000),
      Column('decided the same, PyTorch', 'torch/decided_the_same'),
      Column('ONNX', 'onnx/decided_the_same'),
      Column('figure in JAX', 'jax/figure'),
      Column('PyTorch', 'torch/figure'),
      Column('ONNX', 'onnx/figure'),
      Column('ms, PyTorch', 'torch/ms_per_picture', percent=False),
      Column('ONNX', 'onnx/ms_per_picture', percent=False),
    ),
  ),
}


def of_cell(directory: pathlib.Path, metric: str) -> dict[str, Any]:
  """The figures of a row; the run is converted where it is not yet."""
  from launch import convert

  out = directory / 'exported'
  path = out / 'parity.json'
  found = (
    json.loads(path.read_text())
    if path.exists()
    else convert.convert(directory, out, limit=PICTURES)
  )
  metrics: dict[str, Any] = {'jax/figure': found['torch']['metrics_in_jax'][metric]}
  for side in ('torch', 'onnx'):
    one = found[side]
    apart = dict(one['differences'])
    if 'boxes' in apart:
      metrics[f'{side}/boxes'] = apart.pop('boxes')
    metrics[f'{side}/largest'] = max(apart.values())
    metrics[f'{side}/decided_the_same'] = one['decided_the_same'] / one['n']
    metrics[f'{side}/figure'] = one['metrics'][metric]
    metrics[f'{side}/ms_per_picture'] = one['ms_per_picture']
  return {
    'metrics': metrics,
    'intervals': {},
    'interval_kinds': {},
    'n': found['torch']['n'],
  }
