"""The table that asks whether a number from fifty pictures can be believed (source P)."""

from typing import NamedTuple

from launch.grid import Cell, Column, Table

PICTURES = 50
HELD_OUT = 15
SEEDS = range(1000, 1200)  # 0 to 399 were looked at to choose the interval and the penalty

# Row -> scheme of launch.evidence.
SCHEMES = {
  'leave-one-out': 'leave_one_out',
  'leave-pair-out': 'leave_pair_out',
  'leave-pair-out, groups torn apart': 'torn',
  '5-fold, mean of 20 splits': 'k_fold',
  '5-fold, one split': 'k_fold_once',
  f'hold-out of {HELD_OUT}': 'hold_out',
}


class Setting(NamedTuple):
  """One problem, out of which many small data sets are drawn.

  Attributes:
    positive: name of the positive class.
    negatives: names of the classes that are negatives.
    positives: positive pictures of a data set of 50; the others are negatives.
    strength: penalty of the head in units of the features' spread.
    fewer: whether a data set may hold fewer, where groups are too large to fill it.
    schemes: values of ``SCHEMES``.
  """

  positive: str
  negatives: tuple[str, ...]
  positives: int = 25
  strength: float = 1.0
  fewer: bool = False
  schemes: tuple[str, ...] = tuple(SCHEMES.values())


_STEEL = ('crazing', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches')
_SETS = {
  'bottle caps': ('nearest_neighbor_bc', Setting('defect', ('good',))),
  'solar cells': ('nearest_neighbor_bc:elpv', Setting('defect', ('good',))),
  'steel, inclusions against the rest': ('classifier_neu', Setting('inclusion', _STEEL)),
}
_BACKBONES = {
  'ResNet-18': {},
  'MobileNetV2': {
    **{'method.backbone': 'mobilenet_v2', 'method.stages': 4, 'pretrained.stages': 4},
    'pretrained.weights': 'mobilenet_v2-imagenet-features-bnfolded',
  },
  'ResNet-50 V2': {
    'method.backbone': 'resnet50_v2',
    'pretrained.weights': 'resnet50v2_gluon-imagenet-stage3-fp16',
  },
}
# Column -> config, overrides and setting.
PROBLEMS: dict[str, tuple[str, dict, Setting]] = {
  f'{data}, {backbone}': (config, overrides, setting)
  for data, (config, setting) in _SETS.items()
  for backbone, overrides in _BACKBONES.items()
}
_CAPS = _SETS['bottle caps']
_TILES = Setting(
  'defect',
  ('good',),
  fewer=True,
  schemes=('leave_one_out', 'leave_pair_out', 'torn'),  # too few tiles for five folds
)
PROBLEMS['bottle caps, 10 defects and 40 good, ResNet-18'] = (
  _CAPS[0],
  {},
  _CAPS[1]._replace(positives=10),
)
PROBLEMS['bottle caps, ResNet-18, a hundred times the penalty'] = (
  _CAPS[0],
  {},
  _CAPS[1]._replace(strength=100.0, schemes=('leave_one_out', 'leave_pair_out')),
)
PROBLEMS['magnetic tiles, ResNet-18'] = ('nearest_neighbor_bc:magnetic_tile', {}, _TILES)

_NOTE = (
  f'200 data sets of {PICTURES} pictures each, 25 of either kind where nothing else is said, are '
  'drawn out of a real one, groups of near-copies whole. A ridge head on pooled ImageNet features '
  'is trained on all 50; its AUROC on everything that was not drawn is the truth. Each scheme says '
  'from the 50 alone what it will be. "Holds": in how many data sets the 95 % interval holds the '
  "truth of that very model, asked 90 to 99 % (in brackets Wilson's interval of that share). "
  "The interval adds to DeLong's variance what the choice of the training pictures does, measured "
  'by refits without every two pictures; "DeLong alone" and "bootstrap" take the models as given. '
  '"Hold-out": a model of 35 pictures, tested on the 15 that are set aside, against the truth of '
  'that model; its interval is DeLong alone. "Torn apart": pictures of one group may be on both '
  'sides, as where nobody looks for them. "Over splits": the standard deviation that another draw '
  'of the folds alone gives. Interval and penalty were chosen on data sets 0 to 399; these are '
  '1000 to 1199, and n counts them. Any two classes of NEU are told apart at an AUROC of 0.998 and '
  'more, so the steel problem is one class against the rest, and nearly solved all the same. '
  'Magnetic tiles: a group is the pictures of one tile, 50 pictures are some eight tiles (fewer '
  'where the next tile does not fit; without data sets of under three tiles of a kind). Features: '
  'ResNet-18 to layer 3, MobileNetV2 whole, ResNet-50 V2 to stage 3; 224 x 224 pixels (steel '
  '160 x 160).'
)


TABLES: dict[str, Table] = {
  'E2': Table(
    'Can the number be believed? Cross-validation of 50 pictures against the truth (source P)',
    _NOTE,
    1,
    tuple(
      Cell(row, column, config, overrides, 'coverage', shots='evidence')
      for column, (config, overrides, setting) in PROBLEMS.items()
      for row, scheme in SCHEMES.items()
      if scheme in setting.schemes
    ),
    metrics=(
      Column('holds (95 % asked)', 'coverage'),
      Column('DeLong alone', 'coverage_fixed'),
      Column('bootstrap', 'coverage_bootstrap'),
      Column('AUROC of the model', 'truth'),
      Column('said minus true', 'bias'),
      Column('sd of what is said', 'estimate_sd'),
      Column('sd of said minus true', 'error_sd'),
      Column('sd over splits', 'split_sd'),
      Column('width of the interval', 'width'),
      Column('no pair lost', 'no_pair_lost'),
    ),
  ),
}
