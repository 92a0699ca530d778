"""Rules for every public function: optionals by keyword, keys first, docstrings that say enough."""

import importlib
import inspect
import pathlib
import pkgutil
import types

import pytest

import jaxdefect

ROOMS = ('contracts', 'ops', 'data', 'models', 'losses', 'optim', 'train', 'evaluate', 'explain')
# Signatures that users were promised: the mask of v2 stands where torchvision has it.
POSITIONAL = {('deform_conv2d', 'mask')}
KEY_NAMES = {'rng', 'rngs', 'prng', 'prng_key', 'random_key'}


def problems(function) -> list[str]:
  """What a public function does against the rules, one sentence each."""
  name = f'{function.__module__}.{function.__qualname__}'
  found = []
  parameters = list(inspect.signature(function).parameters.values())
  for place, parameter in enumerate(parameters):
    optional = parameter.default is not inspect.Parameter.empty
    promised = (function.__name__, parameter.name) in POSITIONAL
    if optional and parameter.kind is not inspect.Parameter.KEYWORD_ONLY and not promised:
      found.append(f'{name}: the optional {parameter.name} must be keyword-only')
    if parameter.name in KEY_NAMES:
      found.append(f'{name}: a random key is called key, not {parameter.name}')
    positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    first = all(p.name == 'method' for p in parameters[:place])  # fit(method, key, ...)
    if parameter.name == 'key' and positional and not first:
      found.append(f'{name}: key comes first')
  if not (inspect.getdoc(function) or '').strip():
    found.append(f'{name}: has no docstring')
  return found


def public_functions():
  for room in ROOMS:
    package = importlib.import_module(f'jaxdefect.{room}')
    names = [package.__name__]
    names += [f'{package.__name__}.{m.name}' for m in pkgutil.iter_modules(package.__path__)]
    for module_name in names:
      module = importlib.import_module(module_name)
      for name, value in vars(module).items():
        public = not name.startswith('_') and isinstance(value, types.FunctionType)
        if public and value.__module__ == module_name:
          yield pytest.param(value, id=f'{module_name}.{name}')


@pytest.mark.parametrize('function', list(public_functions()))
def test_function_follows_the_rules(function):
  assert problems(function) == []


@pytest.mark.parametrize('room', ROOMS)
def test_all_names_what_exists(room):
  package = importlib.import_module(f'jaxdefect.{room}')
  assert package.__doc__
  assert all(hasattr(package, name) for name in package.__all__)
  assert list(package.__all__) == sorted(package.__all__)


def test_a_deliberate_break_is_found():
  def bad(image, rng, size=3, key=None):
    return image, rng, size, key

  assert len(problems(bad)) == 5


def test_package_is_typed_and_versioned():
  folder = pathlib.Path(jaxdefect.__file__).parent
  assert (folder / 'py.typed').exists()
  assert jaxdefect.__version__.count('.') == 2


PROMISED = {
  'losses': ('nt_xent', 'arcface', 'prototype_cross_entropy', 'update_prototypes'),
  'methods': ('names', 'load'),
  'ops': (
    *('warp', 'deform_conv2d', 'roi_align', 'multiscale_roi_align', 'nms'),
    *('box_iou', 'encode_boxes', 'decode_boxes'),
  ),
  'optim': ('maml_losses', 'inner_loop', 'gradient_step'),
}


@pytest.mark.parametrize(('room', 'name'), [(r, n) for r, names in PROMISED.items() for n in names])
def test_promised_name_exists(room, name):
  assert callable(getattr(importlib.import_module(f'jaxdefect.{room}'), name))
