"""The tables of comparators: what the sources compare with, and what has come since."""

from typing import Any

from launch.detection_tables import AP
from launch.grid import Cell, Column, Table

SIAMESE, CASI, GAN = 'Siamese one-shot', 'CASI-Net', 'multi-training GAN'
_CONFIGS = {
  SIAMESE: 'siamese_one_shot_neu',
  CASI: 'casi_net_neu',
  GAN: 'multi_training_gan_neu',
}
# What the GAN's row would be without what it makes: the same classifier, as many steps.
_ALONE = {"the GAN's classifier alone, as many steps": ('classifier_neu', {'steps': 1000})}
# Row -> share of NEU that trains, in %, and what source B prints of it (Table II).
_SHARES = {SIAMESE: (80, 92.55), CASI: (70, 95.98), GAN: (60, 99.56)}
_START = (
  'The Siamese network and CASI-Net start from random weights, as theirs did; the residual '
  "classifier of the multi-training GAN from the ImageNet weights of B3's rows (ResNet-18 up to "
  'layer 3). What each paper leaves open is said in the file of its method. Copies never straddle '
  'a split. '
)
MIXED = (
  Column('accuracy', 'accuracy'),
  *(
    Column(f'{number} {"defects" if number > 1 else "defect"}', f'mixed_accuracy/{number}')
    for number in (1, 2, 3, 4)
  ),
)
_ANOMALY = (
  Column('AUROC', 'auroc'),
  Column('average precision', 'average_precision'),
  Column('false alarms where 95 % are found', 'fpr95'),
  Column('false alarms (5 % asked)', 'false_alarm_rate'),
  Column('misses', 'miss_rate'),
  Column('ms per image', 'ms_per_image', percent=False),
  Column('stored, MB', 'model_bytes', percent=False, factor=1e-6),
)
_DINO: dict[str, dict[str, Any]] = {
  'AnomalyDINO on ResNet-18, 16 good parts': {},
  'AnomalyDINO on ResNet-18, 1 good part': {'references_per_class': 1},
  'AnomalyDINO on ResNet-18, 4 good parts': {'references_per_class': 4},
}

TABLES: dict[str, Table] = {
  'X4': Table(
    'NEU, k = 10: the comparators of source B',
    _START + '600 test images per seed; splits and seeds are those of B3, whose rows '
    '"contrastive + margin" and "cross-entropy" are what they compare with (the last in 100 steps, '
    'the GAN in 1,000).',
    3,
    tuple(
      Cell(row, 'k = 10', config, {'split.per_class': 10, 'split.max_test': 600, **more})
      for row, (config, more) in ({k: (c, {}) for k, c in _CONFIGS.items()} | _ALONE).items()
    ),
  ),
  'X5': Table(
    'NEU at the shares of the comparators (source B, Table II), and one-shot',
    _START + 'Tested on all other images, one seed. One-shot: trained on patches, inclusion and '
    'rolled-in scale; crazing, scratches and pitted surface are told apart by one reference each, '
    "mean over 100 random choices. The Siamese paper's published notebook counts pairs, same or "
    'different, of which a coin gets half right: its 92.55 and 83.22 may be no accuracies over '
    "classes. CASI-Net's layers are not known here, so its row is no reproduction. Rows above "
    "their paper's figure are not so by copies, each group of which is on one side; NEU is an easy "
    'set at these shares, as the rows of B2 say.',
    1,
    (
      *(
        Cell(row, f'{share} %', f'{_CONFIGS[row]}:percent', {'split.train': share / 100}, paper=p)
        for row, (share, p) in _SHARES.items()
      ),
      Cell(SIAMESE, 'one-shot', f'{_CONFIGS[SIAMESE]}:unseen', {}, 'accuracy/1_shot', 83.22, ''),
    ),
  ),
  'X6': Table(
    'NEU-DET: a single-stage detector of the YOLOv8 class',
    'Written from the papers of its parts, from random weights (no weights of such a network could '
    'be had), where the rows of A1 start from ImageNet weights; split, seed and test images are '
    "those of A1's first seed. Source A prints 88.3 and 86.9 for YOLOv8s on its private sets; "
    'the best protocol found for NEU-DET has 78.3 +- 1.05 for YOLO11n from COCO weights.',
    1,
    (Cell('YOLO, n', '70 %', 'yolo_neu_det', {}, 'map50'),),
    metrics=AP,
    per_class='ap50/',
  ),
  'X7': Table(
    'MixedWM38, 20 maps per class: networks made for wafer maps',
    'From random weights, 52 x 52 pixels; the part of the set, splits and seeds are those of B6. '
    'The papers train on 80 % of all 38,015 maps and print 93.2 (DC-Net) and 98.2 '
    '(WaferSegClassNet): another problem.',
    3,
    (
      Cell('DC-Net', 'k = 20', 'dc_net_mixedwm38', {}),
      Cell('WaferSegClassNet', 'k = 20', 'wafer_seg_class_net_mixedwm38', {}),
    ),
    metrics=MIXED,
  ),
  'X8': Table(
    'Bottle caps from a few good parts: the way of AnomalyDINO',
    'No weights of DINOv2 could be had, so these rows have the ImageNet features that PatchCore '
    'has in D1, at 256 x 256 pixels: they say what the way of scoring does (cosine distance, mean '
    'of the 1 % largest distances; no turns, as the caps stand upright), not what DINOv2 features '
    'would. Threshold and test pictures are those of D1, whose PatchCore has all good parts.',
    1,
    tuple(
      Cell(row, 'bottle caps', 'anomaly_dino_bc:resnet18', overrides, 'auroc')
      for row, overrides in _DINO.items()
    ),
    metrics=_ANOMALY,
  ),
}
