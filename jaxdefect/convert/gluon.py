"""Names of MXNet Gluon's model zoo, as they stand in the ONNX model zoo's files.

Gluon joins the path of a parameter with underscores behind a prefix that counts the instances of
a network in the process that wrote the file: ``resnetv24_stage1_conv0_weight``.
"""

import re
from collections.abc import Iterable

_PREFIXES = {
  'resnet50_v2': (re.compile(r'resnetv2\d+_'), 'resnetv20_'),
  'mobilenet_v2_gluon': (re.compile(r'mobilenetv2\d+_features_'), 'mobilenetv20_features_'),
}
BACKBONES = tuple(_PREFIXES)

_WORDS = {
  'kernel': 'weight',
  'scale': 'gamma',
  'bias': 'beta',
  'mean': 'running_mean',
  'var': 'running_var',
}


def prefix(backbone: str, keys: Iterable[str]) -> str:
  """The prefix of a file's keys, or the usual one where no key has any."""
  pattern, usual = _PREFIXES[backbone]
  matches = (pattern.match(key) for key in keys)
  return next((match.group() for match in matches if match), usual)


def file_key(prefix: str, path: tuple[str, ...]) -> str:
  """Gluon's key of one parameter.

  >>> file_key('resnetv24_', ('stage2', 'batchnorm3', 'scale'))
  'resnetv24_stage2_batchnorm3_gamma'
  """
  return prefix + '_'.join((*path[:-1], _WORDS[path[-1]]))


def head_keys(backbone: str, prefix: str) -> tuple[str, str]:
  """Keys of the classifier's weight and bias; MobileNetV2's has no bias."""
  if backbone == 'resnet50_v2':
    return f'{prefix}dense0_weight', f'{prefix}dense0_bias'
  stem = prefix.removesuffix('features_')
  return f'{stem}output_pred_weight', f'{stem}output_pred_bias'
