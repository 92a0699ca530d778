"""One file per data set: ``load('neu', dir=...)`` imports it and calls its ``make``."""

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import Any

from jaxdefect.data.source import Source


def names() -> tuple[str, ...]:
  """The data sets that ``load`` knows: the files of this folder."""
  return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str, /, **kwargs: Any) -> Source:
  """Opens a data set.

  Args:
    name: one of ``names()``.
    **kwargs: handed to the ``make`` of ``jaxdefect/data/sources/<name>.py``.

  Returns:
    The opened data set.

  Raises:
    ValueError: there is no such data set.
  """
  return _module(name).make(**kwargs)


def load_tasks(name: str, /, **kwargs: Any) -> dict[str, Source]:
  """Opens every product of a collection as a task of its own.

  Args:
    name: one of ``names()`` whose file has ``tasks``: a collection of products.
    **kwargs: handed to it.

  Returns:
    The tasks by name.

  Raises:
    ValueError: there is no such data set, or it is one product.
  """
  module = _module(name)
  if not hasattr(module, 'tasks'):
    raise ValueError(f'The data set {name!r} is one product; it has no others to open with it.')
  return module.tasks(**kwargs)


def _module(name: str) -> ModuleType:
  if name not in names():
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(f'There is no data set {name!r}; known are {", ".join(names())}.{hint}')
  return importlib.import_module(f'{__name__}.{name}')
