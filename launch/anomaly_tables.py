"""The tables of anomaly methods as grids of runs: methods, and features, on four products."""

from launch.grid import Cell, Column, Table

# Column -> variant of a config.
TARGETS = {
  'bottle caps': 'bc',
  'Magnetic-Tile': 'magnetic_tile',
  'ELPV': 'elpv',
  'DeepPCB': 'deep_pcb',
}
# Row -> method and what differs from its config.
METHODS: dict[str, tuple[str, dict]] = {
  'PatchCore': ('patchcore', {}),
  'PaDiM': ('padim', {}),
  'SPADE': ('spade', {}),
  'SPADE, largest value of the map': ('spade', {'method.score': 'map'}),
  '1-NN': ('nearest_neighbor', {}),
  'Deep SVDD': ('deep_svdd', {}),
  'Patch-SVDD': ('patch_svdd', {}),
  'GANomaly': ('ganomaly', {}),
  'Uninformed Students': ('uninformed_students', {}),
}
# Weights that a run gives, made of this config where it is missing.
RUN = 'run:'
FEATURES = {
  'ResNet-18, ImageNet': {},
  'MobileNetV2, ImageNet': {
    'method.backbone': 'mobilenet_v2',
    'pretrained.weights': 'mobilenet_v2-imagenet-features-bnfolded',
  },
  'ResNet-18, self-supervised on the good parts': {
    'pretrained.weights': f'{RUN}nearest_neighbor_bc:self_supervised_{{target}}',
  },
  'ResNet-18, random': {'pretrained.weights': ''},
}
_COLUMNS = (
  Column('AUROC', 'auroc'),
  Column('average precision', 'average_precision'),
  Column('false alarms where 95 % are found', 'fpr95'),
  Column('false alarms (5 % asked)', 'false_alarm_rate'),
  Column('where that is likely to lie', 'likely_false_alarm_rate'),
  Column('misses', 'miss_rate'),
  Column('AUROC of pixels', 'pixel_auroc'),
  Column('PRO', 'pro'),
  Column('fit, s', 'fit_seconds', percent=False),
  Column('ms per image', 'ms_per_image', percent=False),
  Column('stored, MB', 'model_bytes', percent=False, factor=1e-6),
  Column('peak, MB', 'peak_bytes', percent=False, factor=1e-6),
)
_DECISIONS = ('auroc', 'fpr95', 'false_alarm_rate', 'miss_rate')
_NOTE = (
  'Good parts alone: 56 % of them fit, 14 % set the threshold (split-conformal, 5 % false alarms '
  'asked for on average), 30 % and all defects are tested; groups of near-copies stay whole. One '
  'seed; intervals over the test images (bootstrap; Wilson for false alarms and misses). '
  'Magnetic-Tile: pictures of one tile stay together. DeepPCB: crops of one board stay together, '
  'so that the defects of 70 % of the boards are left out; its masks are boxes. One picture of '
  'each group sets the threshold, and the intervals count groups: six exposures of one tile with a '
  'mark are six false alarms, but one tile. The rate of one threshold is likely (19 of 20 times) '
  'to lie where the table says: with few groups, far from the 5 % that thresholds keep on average. '
  'ELPV: probability 0 is good and 1 defective; the cells between count in no figure here. '
)
_COST = (
  'Fit: training and adapting, with reading the pictures and compiling; ms per image: one batch of '
  '16 once compiled; peak: of the whole run, with the pictures that it keeps decoded; all on two '
  'cores that other work shared, of two machines (Intel and AMD), so that seconds compare roughly.'
)


def _cell(row: str, column: str, method: str, overrides: dict) -> Cell:
  target = TARGETS[column]
  filled = {name: value.format(target=target) for name, value in overrides.items()}
  return Cell(row, column, f'{method}_bc:{target}', filled, 'auroc')


TABLES: dict[str, Table] = {
  'D1': Table(
    'When there are no defects yet: methods that know good parts alone',
    _NOTE
    + 'Features of ResNet-18 (ImageNet, up to layer 3) where a method takes features; the teacher '
    'of Uninformed Students is distilled from them on the good pictures at hand. Deep SVDD, '
    'Patch-SVDD and GANomaly start from random weights. Rates, steps and image sizes of Deep SVDD, '
    'Patch-SVDD and Uninformed Students were chosen with test caps of this seed in view, which '
    'flatters them on bottle caps. ' + _COST,
    1,
    tuple(
      _cell(row, column, method, overrides)
      for column in TARGETS
      for row, (method, overrides) in METHODS.items()
    ),
    metrics=_COLUMNS,
    averaged='auroc',
  ),
  'D2': Table(
    'Which features PatchCore needs',
    _NOTE
    + 'Layers 2 and 3 of each network. Self-supervised: NT-Xent between two random views of each '
    'of the good pictures that fit (`nearest_neighbor_bc:self_supervised`), from random weights; '
    'its training (200 steps) is not in the seconds. ' + _COST,
    1,
    tuple(
      _cell(row, column, 'patchcore', overrides)
      for column in TARGETS
      for row, overrides in FEATURES.items()
    ),
    metrics=_COLUMNS,
  ),
  'D3': Table(
    'Does an anomaly method alarm more often than a supervised one? (a remark of source P)',
    'Bottle caps. PatchCore as in D1, from 56 % of the good caps and no defect. Supervised: the '
    'cross-entropy classifier (ResNet-18 up to layer 3 from ImageNet, 160 x 160 pixels, from stage '
    '3 on) from k caps of each kind, or 70 % of all; false alarms and misses are those of its own '
    'decision, of PatchCore those of the threshold for 5 %. The test caps are what was not '
    'trained on, so they differ from row to row. One seed.',
    1,
    (
      _cell('PatchCore', 'bottle caps', 'patchcore', {})._replace(column='good caps alone'),
      *(
        Cell('cross-entropy', column, config, overrides, 'auroc')
        for column, config, overrides in (
          ('10 of each', 'classifier_bc:few', {'split.per_class': 10}),
          ('30 of each', 'classifier_bc:few', {'split.per_class': 30}),
          ('70 % of all', 'classifier_bc', {}),
        )
      ),
    ),
    metrics=tuple(column for column in _COLUMNS if column.metric in _DECISIONS),
  ),
}
