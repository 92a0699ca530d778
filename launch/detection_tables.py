"""The tables of detectors as grids of runs; ``tables`` holds those of recognisers."""

from launch.grid import Cell, Column, Table

BASELINE, WHOLE = 'Faster R-CNN', 'whole method'
_CONFIGS = {BASELINE: 'faster_rcnn_neu_det:baseline', WHOLE: 'faster_rcnn_neu_det'}
AP = (
  Column('mAP@0.5', 'map50'),
  Column('mAP', 'map'),
  Column('recall at 0.1 false alarms per image', 'recall_at_0.1_fp'),
  Column('at 1', 'recall_at_1_fp'),
)
_START = (
  'Start: ImageNet weights of ResNet-18 up to layer 3, stem and first stage frozen; 320 x 320 '
  'pixels of 200 x 200; pyramid of 128 channels at strides 8 to 64.'
)
# The three changes of the paper as settings of the baseline config.
DEFORMABLE = {'method.deformable': 'v2'}
GS = {'method.neck': 'gs_fpn', 'method.box_head': 'gs'}
PROTOTYPES = {'method.classifier': 'prototype', 'method.balance_classes': True}
_PLAIN = {
  'method.deformable': None,
  'method.neck': 'fpn',
  'method.box_head': 'mlp',
  'method.classifier': 'linear',
  'method.balance_classes': False,
}
_FEW = 'split.boxes_per_class'
# 80 images against 300, as the paper's rarest class has; 70 % of them train.
_RARE = {'split.max_per_class.scratches': 56}


def _detection(row: str, column: str, config: str, overrides: dict, **more) -> Cell:
  return Cell(row, column, config, overrides, metric='map50', **more)


TABLES: dict[str, Table] = {
  'A1': Table(
    "NEU-DET, 70 % of the images for training (source A's detector on a public set)",
    _START
    + ' 8 epochs (5,040 steps of 2 images); 360 test images per seed, 180 for validation, on which '
    "optimiser, batch, number of regions, the background's score and the normalisation of the GS "
    "parts were chosen. Not far from it: torchvision's "
    'Faster R-CNN on the same start (256 channels from stride 4, 8 epochs of 80 % of the images, '
    'one seed, 360 test images) gets mAP@0.5 69.5 and mAP 31.4.',
    3,
    tuple(_detection(row, '70 %', config, {}) for row, config in _CONFIGS.items()),
    metrics=AP,
    per_class='ap50/',
  ),
  'A2': Table(
    'NEU-DET, the parts one by one (source A, Table 2: mAP on a private set)',
    _START + ' As A1. The paper has ResNet-50 and 640 pixels; its parameters are compared with '
    'ours in docs/parameters.md.',
    1,
    tuple(
      _detection(row, '70 %', config, overrides, paper=paper)
      for row, config, overrides, paper in (
        ('none', _CONFIGS[BASELINE], {}, 86.4),
        ('deformable', _CONFIGS[BASELINE], DEFORMABLE, 88.7),
        ('GS-FPN and head', _CONFIGS[BASELINE], GS, 87.9),
        ('prototypes', _CONFIGS[BASELINE], PROTOTYPES, 89.2),
        ('deformable, GS-FPN and head', _CONFIGS[BASELINE], {**DEFORMABLE, **GS}, 90.5),
        ('all', _CONFIGS[WHOLE], {}, 93.6),
      )
    ),
    metrics=AP,
    per_class='ap50/',
  ),
  'A3': Table(
    'NEU-DET from 10 and 30 boxes per class',
    _START + ' 800 steps of 2 images; whole images until every class has at least so many boxes.',
    3,
    tuple(
      _detection(
        row,
        f'{k} boxes',
        'faster_rcnn_neu_det:few',
        {_FEW: k} | ({} if row == WHOLE else _PLAIN),
      )
      for k in (10, 30)
      for row in (BASELINE, WHOLE)
    ),
    metrics=AP,
    per_class='ap50/',
  ),
  'A4': Table(
    'NEU-DET with a rare class: scratches have 56 training images, the others 210',
    _START + " As A1, but the paper's imbalance (80 images of the rarest class against 300; its "
    'rarest class 89.7, 11.3 above the baseline).',
    1,
    tuple(_detection(row, 'rare scratches', config, _RARE) for row, config in _CONFIGS.items()),
    metrics=(*AP, Column('scratches, AP@0.5', 'ap50/scratches')),
    per_class='ap50/',
  ),
  'A5': Table(
    'DeepPCB (two of its groups), with and without deformable convolution',
    'Start: ImageNet weights of ResNet-18 up to layer 3, stem and first stage frozen; 640 x 640 '
    'pixels. The paper suspects that deformable convolution is worse on regular round defects: see '
    'pin-hole. Most defects of the set were painted in by its authors.',
    1,
    tuple(
      _detection(row, '60 %', config, {})
      for row, config in (
        (BASELINE, 'faster_rcnn_deep_pcb:baseline'),
        (f'{WHOLE}, not deformable', 'faster_rcnn_deep_pcb:rigid'),
        (WHOLE, 'faster_rcnn_deep_pcb'),
      )
    ),
    metrics=AP,
    per_class='ap50/',
  ),
  'A6': Table(
    'NEU-DET, scratches left out of training and added from a few boxes without training',
    _START
    + ' 2,000 steps; training images hold no scratch. AP@0.5, means over 3 draws of the boxes; 75 '
    'training images, the same in every draw, say what a scratch is not. The new class is hardly '
    'found: scratches are 1:7 in the median, boxes that were trained on rarely beyond 1:5, so that '
    'every other scratch has no proposal at IoU 0.5; a linear classifier from 200 boxes reaches '
    'about 12 there, and about 30 at IoU 0.3. That training images help was first seen on images '
    'outside the test part, then on the test part.',
    1,
    (Cell(WHOLE, 'adapt', 'faster_rcnn_neu_det:unseen', {}, metric='new/10_boxes', shots='boxes'),),
    metrics=(
      Column('scratches from 5 boxes', 'new/5_boxes'),
      Column('from 10 boxes', 'new/10_boxes'),
      Column('other classes before', 'old/before'),
      Column('after 5 boxes', 'old/5_boxes'),
      Column('after 10 boxes', 'old/10_boxes'),
    ),
  ),
  'A7': Table(
    "Against other detectors on the source's own sets (source A, Table 3)",
    '',
    0,
    (),
    missing='both of its data sets are private; A1 and X6 compare detectors on NEU-DET.',
  ),
}
