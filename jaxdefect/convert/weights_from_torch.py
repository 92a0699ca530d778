"""Pretrained weights from torchvision-shaped, Gluon and timm files, whole or a declared part.

timm's ``resnet18``, ``resnet34``, ``resnet50`` and ``resnet101`` use torchvision's keys, classifier
included (``fc``), and load the same way. Its ``efficientnet_b0`` and ``efficientnet_b3`` have names
of their own and load too, but not its ``tf_efficientnet_*``, which are other networks (see
``timm_efficientnet``). timm's MobileNetV2 has names of its own and is refused. Vision transformers
load from DINOv2's files and timm's (see ``timm_vision_transformer``).
"""

import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdefect import models
from jaxdefect.convert import (
  gluon,
  state_dicts,
  timm_efficientnet,
  timm_vision_transformer,
  torch_params,
)

_STAGES = 4
_EPSILON = 1e-5

# What architectures are called in file names, where that is not their name here.
_FILE_NAMES = {
  'resnet50_v2': ('resnet50_v2', 'resnet50v2_gluon'),
  'mobilenet_v2_gluon': ('mobilenet_v2_gluon', 'mobilenetv2_gluon'),
  'efficientnet_b0': ('efficientnet_b0', 'efficientnet_b0_rwightman', 'efficientnet_b0_ra'),
  'efficientnet_b3': ('efficientnet_b3', 'efficientnet_b3_rwightman', 'efficientnet_b3_ra2'),
  **timm_vision_transformer.FILE_NAMES,
}


@dataclass(frozen=True, eq=False)
class Pretrained:
  """Weights from a file, in our layout.

  Attributes:
    variables: ``{'params': tree, 'batch_stats': tree}`` of float32 numpy arrays, for the backbone.
    head: the classifier's ``{'kernel': [F, K], 'bias': [K]}``, or None where the file has none or
      a part was declared.
    folded: True if BatchNorm was multiplied into the kernels. Such layers compute the original
      network in evaluation mode only: keep their statistics (``update_statistics=False``) or
      freeze them.
    source: name of the file.
    sha256: its checksum.
  """

  variables: dict[str, Any]
  head: dict[str, np.ndarray] | None
  folded: bool
  source: str
  sha256: str


def load(
  path_or_name: str | pathlib.Path,
  *,
  backbone: str,
  stages: int | None = None,
  weights_dir: str | pathlib.Path | None = None,
) -> Pretrained:
  """Loads a weight file for a backbone, strictly.

  Every parameter of the declared network must be there with its shape. Keys of later stages and of
  the classifier are left aside where a part is declared; any other key is an error.

  Args:
    path_or_name: a ``.safetensors``, ``.pth`` or ``.pt`` file; or, in ``weights_dir``, a file's
      name without its ending, or the name of an architecture that exactly one file there has.
    backbone: a name of ``models.frozen_backbone``.
    stages: the part to load, stem and first stages, 1 to 4. None means the whole network.
    weights_dir: folder in which names are looked up.

  Returns:
    A ``Pretrained``; ``models.merge_pretrained(variables, pretrained.variables)`` uses it.

  Raises:
    ValueError: no such file, an unreadable one, one that does not fit, or timm's port of a
      TensorFlow network; one sentence naming the file, the key, what came and what is allowed.
    ModuleNotFoundError: a PyTorch file, and torch is not installed.
  """
  path = find(path_or_name, weights_dir=weights_dir)
  if backbone in timm_efficientnet.BACKBONES:
    timm_efficientnet.refuse_tensorflow(path)
  return _fitted_in(path, state_dicts.read(path), backbone, stages)


def load_exported(
  folder: str | pathlib.Path, *, backbone: str, stages: int | None = None
) -> Pretrained:
  """The backbone of a model that ``launch.convert`` wrote, back in our layout.

  Args:
    folder: of the model; of a hybrid, its supervised part is taken.
    backbone: a name of ``models.frozen_backbone``.
    stages: the part to load, as in ``load``.

  Returns:
    A ``Pretrained``.

  Raises:
    ValueError: the folder holds no such weights, or they do not fit.
  """
  path = pathlib.Path(folder) / 'model.safetensors'
  if not path.is_file():
    raise ValueError(f'{folder} holds no exported weights: there is no {path.name} in it')
  prefixes = ('backbone.', 'supervised.backbone.')
  state = {
    key.removeprefix(prefix): value
    for key, value in state_dicts.read(path, only=prefixes).items()
    for prefix in prefixes
    if key.startswith(prefix)
  }
  return _fitted_in(path, state, backbone, stages)


def _fitted_in(
  path: pathlib.Path, state: dict[str, np.ndarray], backbone: str, stages: int | None
) -> Pretrained:
  """A state dict, checked against a backbone, in our layout."""
  if backbone in timm_vision_transformer.BACKBONES:
    state = timm_vision_transformer.dinov2_state(state)
  template = _template(backbone, stages)
  names = _Names(backbone, tuple(state))
  wanted = names.of(template)
  known = names.of(_template(backbone, None)).keys() | {*names.head, *names.unused}

  unknown = [key for key in state if key not in known]
  if unknown:
    more = f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''
    raise ValueError(
      f'{path} holds {unknown[0]!r}{more}, which {backbone} does not have: '
      f'its keys are like {names.example!r}'
    )
  missing = [key for key in wanted if key not in state]
  if missing:
    raise ValueError(f'{path} holds no {_first(missing)!r}; {_advice(backbone, names, state)}')

  variables: dict[str, Any] = {collection: {} for collection in template}
  for key, (collection, leaf_path, shape) in wanted.items():
    if state[key].shape != shape:
      raise ValueError(
        f'{path} holds {key!r} with shape {state[key].shape}; {backbone} needs {shape}'
      )
    leaf = torch_params.from_torch_axes(leaf_path, state[key])
    torch_params.insert(variables[collection], leaf_path, leaf)
  return Pretrained(
    variables=variables,
    head=_head(path, names, state, wanted) if stages in (None, _STAGES) else None,
    folded=_is_folded(variables),
    source=path.name,
    sha256=state_dicts.sha256(path),
  )


def find(
  path_or_name: str | pathlib.Path, *, weights_dir: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Finds a weight file by path, or by name in a folder; see ``load``."""
  path = pathlib.Path(path_or_name)
  if path.is_file():
    return path
  name = str(path_or_name)
  searched = weights_dir is not None and pathlib.Path(weights_dir).is_dir()
  if path.suffix in state_dicts.SUFFIXES and not (searched and path.name == name):
    raise ValueError(f'weight file {name} does not exist')
  if weights_dir is None:
    raise ValueError(
      f'weights {name!r} is no file, and no weights folder was given to look the name up in'
    )
  folder = pathlib.Path(weights_dir)
  if not folder.is_dir():
    raise ValueError(
      f'weights {name!r} is no file, and the folder {folder}, where the name would be looked up, '
      'does not exist: give the path of a file, or an empty name for random weights'
    )
  files = sorted(p for p in folder.iterdir() if p.suffix in state_dicts.SUFFIXES)
  fitting = [p for p in files if name in (p.name, p.stem)]
  fitting = fitting or [p for p in files if _architecture(p) in _spellings(name)]
  if not fitting:
    held = ', '.join(p.name for p in files) or 'no weight files'
    raise ValueError(f'weights folder {folder} has no file for {name!r}; it holds {held}')
  if len(fitting) > 1:
    held = ', '.join(p.name for p in fitting)
    raise ValueError(f'weights folder {folder} has {len(fitting)} files for {name!r}: {held}')
  return fitting[0]


class _Names:
  """The keys that a file for one backbone uses."""

  def __init__(self, backbone: str, keys: tuple[str, ...]):
    self._rename: Callable[[str, tuple[str, ...]], str] = torch_params.torch_key
    self.unused: tuple[str, ...] = ()
    if backbone in gluon.BACKBONES:
      prefix = gluon.prefix(backbone, keys)
      self._rename = lambda collection, path: gluon.file_key(prefix, path)
      self.head = gluon.head_keys(backbone, prefix)
      self.example = gluon.file_key(prefix, ('conv0', 'kernel'))
    elif backbone in timm_efficientnet.BACKBONES and timm_efficientnet.is_timm(keys):
      self._rename = lambda collection, path: timm_efficientnet.file_key(
        torch_params.torch_key(collection, path)
      )
      self.head, self.example = timm_efficientnet.HEAD, 'blocks.0.0.conv_dw.weight'
    elif backbone in timm_efficientnet.BACKBONES:
      self.head = ('classifier.1.weight', 'classifier.1.bias')
      self.example = 'features.1.0.block.0.0.weight'
    elif backbone in timm_vision_transformer.BACKBONES:
      self.head, self.example = timm_vision_transformer.HEAD, timm_vision_transformer.EXAMPLE
      self.unused = timm_vision_transformer.UNUSED
    elif backbone == 'mobilenet_v2':
      self.head, self.example = ('classifier.1.weight', 'classifier.1.bias'), 'features.0.0.weight'
    else:
      self.head, self.example = ('fc.weight', 'fc.bias'), 'layer1.0.conv1.weight'

  def of(self, template: Mapping) -> dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """File key -> (collection, path, shape in the file) for every leaf of a template."""
    return {
      self._rename(collection, path): (
        collection,
        path,
        torch_params.torch_shape(path, leaf.shape),
      )
      for collection, path, leaf in torch_params.leaves(template)
    }


@functools.lru_cache(maxsize=16)
def _template(backbone: str, stages: int | None) -> dict[str, Any]:
  module = models.frozen_backbone(backbone, stages=stages)
  blank = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)  # patches of 14 and of 16 fit
  return jax.eval_shape(module.init, jax.random.key(0), blank)


def _head(path, names: _Names, state, wanted) -> dict[str, np.ndarray] | None:
  weight, bias = (state.get(key) for key in names.head)
  if weight is None:
    return None
  kernel = weight.reshape(len(weight), -1).T  # Gluon's MobileNetV2 has a 1x1 convolution there
  bias = np.zeros(len(weight), np.float32) if bias is None else bias
  if bias.shape != kernel.shape[1:]:
    raise ValueError(
      f'{path} holds {names.head[1]!r} with shape {bias.shape}; '
      f'{names.head[0]!r} needs {kernel.shape[1:]}'
    )
  return {'kernel': np.ascontiguousarray(kernel), 'bias': bias}


def _is_folded(variables: Mapping[str, Any]) -> bool:
  expected = {'scale': 1.0, 'mean': 0.0, 'var': 1.0 - _EPSILON}
  return 'batch_stats' in variables and all(
    np.allclose(leaf, expected[path[-1]], rtol=0, atol=1e-7)
    for _, path, leaf in torch_params.leaves(variables)
    if path[-1] in expected
  )


def _advice(backbone: str, names: _Names, state: Mapping[str, Any]) -> str:
  for stages in range(_STAGES - 1, 0, -1):
    if names.of(_template(backbone, stages)).keys() <= state.keys():
      unit = 'layer' if names.example.startswith('layer') else 'stage '
      return f'the file ends after {unit}{stages}: pass stages={stages} to load that part'
  return f'{backbone} needs it, also for its first stage alone'


def _first(keys: list[str]) -> str:
  """The first key in the network's order, kernels before BatchNorm."""
  kernels = [key for key in keys if 'conv' in key and key.endswith('weight')]
  return min(kernels or keys, key=lambda key: [int(s) if s.isdigit() else s for s in _split(key)])


def _split(key: str) -> list[str]:
  return re.split(r'(\d+)', key)


def _architecture(path: pathlib.Path) -> str:
  """'resnet18-5c106cde.pth' and 'resnet18.safetensors' are resnet18's."""
  return re.split(r'[-.]', path.name)[0]


def _spellings(name: str) -> tuple[str, ...]:
  return _FILE_NAMES.get(name, (name,))
