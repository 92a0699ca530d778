"""timm's names for the parameters of EfficientNet-B0 and B3.

timm's ``efficientnet_b0`` and ``efficientnet_b3`` are torchvision's networks under other names.
Its ``tf_efficientnet_*`` are not: they pad as TensorFlow does (more behind than before, at stride
2) and have 1e-3 in BatchNorm where these have 1e-5. Keys and shapes of both are the same, so only
the name of a file tells them apart, and a renamed one loads and computes something else.
"""

import pathlib
from collections.abc import Iterable

BACKBONES = ('efficientnet_b0', 'efficientnet_b3')
HEAD = ('classifier.weight', 'classifier.bias')

# torchvision's name -> timm's: around the blocks, in a block without expansion, in one with it.
_AROUND = {
  'features.0.0': 'conv_stem',
  'features.0.1': 'bn1',
  'features.8.0': 'conv_head',
  'features.8.1': 'bn2',
}
_SEPARABLE = {
  '0.0': 'conv_dw',
  '0.1': 'bn1',
  '1.fc1': 'se.conv_reduce',
  '1.fc2': 'se.conv_expand',
  '2.0': 'conv_pw',
  '2.1': 'bn2',
}
_INVERTED = {
  '0.0': 'conv_pw',
  '0.1': 'bn1',
  '1.0': 'conv_dw',
  '1.1': 'bn2',
  '2.fc1': 'se.conv_reduce',
  '2.fc2': 'se.conv_expand',
  '3.0': 'conv_pwl',
  '3.1': 'bn3',
}


def is_timm(keys: Iterable[str]) -> bool:
  """Says whether the keys of a file are timm's."""
  return any(key.startswith(('conv_stem.', 'blocks.')) for key in keys)


def file_key(key: str) -> str:
  """timm's key for torchvision's.

  >>> file_key('features.2.1.block.2.fc1.bias')
  'blocks.1.1.se.conv_reduce.bias'
  """
  layer, word = key.rsplit('.', 1)
  if layer in _AROUND:
    return f'{_AROUND[layer]}.{word}'
  block, inside = layer.split('.block.')
  _, row, index = block.split('.')
  names = _SEPARABLE if row == '1' else _INVERTED
  return f'blocks.{int(row) - 1}.{index}.{names[inside]}.{word}'


def refuse_tensorflow(path: pathlib.Path) -> None:
  """Raises a ValueError for a file whose name says that it holds a ``tf_efficientnet_*``."""
  if path.name.startswith('tf_'):
    raise ValueError(
      f'{path} is named as a port of the TensorFlow network, which pads and normalises otherwise '
      'and would give wrong numbers here: take a file of efficientnet_b0 or efficientnet_b3 '
      "without 'tf_'"
    )
