"""Settings that make a method small: what its own test file says, else its smoke config.

``tests/methods/test_<name>.py`` may hold ``SMALL``; ``VIEWS``, an augmentation, where the method
draws random views; and ``UNCOUPLED``, settings with which a step takes its batch in parts.
"""

import importlib
import importlib.util
from typing import Any

from jaxdefect import methods
from tests.method_batches import NAMES, SMOKE


def _of_test(name: str, setting: str) -> Any:
  module = f'tests.methods.test_{name}'
  if importlib.util.find_spec(module) is None:
    return None
  return getattr(importlib.import_module(module), setting, None)


def _of_config(name: str) -> dict[str, Any]:
  return {k: v for k, v in SMOKE[name].method.to_dict().items() if k not in ('name', 'dtype')}


def _all(setting: str) -> dict[str, Any]:
  found = {name: _of_test(name, setting) for name in NAMES}
  return {name: value for name, value in found.items() if value is not None}


def _takes_steps(name: str) -> bool:
  try:
    methods.load(name)().step(None, None, None)
  except Exception as error:  # what the others say of no batch is theirs
    return 'takes no steps' not in str(error)
  return True


SMALL = {name: _of_config(name) for name in NAMES if name in SMOKE} | _all('SMALL')
VIEWS, UNCOUPLED = _all('VIEWS'), _all('UNCOUPLED')
# Methods that are fitted by adapt alone.
STEPLESS = {name for name in NAMES if not _takes_steps(name)}
