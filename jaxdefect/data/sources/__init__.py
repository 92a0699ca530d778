"""One file per data set: ``load('neu', dir=...)`` imports it and calls its ``make``."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
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
    ValueError: there is no such data set, it has no such setting, or it needs another one.
  """
  return _called(name, _module(name).make, kwargs)


def load_tasks(name: str, /, **kwargs: Any) -> dict[str, Source]:
  """Opens every product of a collection as a task of its own.

  Args:
    name: one of ``names()`` whose file has ``tasks``: a collection of products.
    **kwargs: handed to it.

  Returns:
    The tasks by name.

  Raises:
    ValueError: as ``load``, or the data set is one product.
  """
  module = _module(name)
  if not hasattr(module, 'tasks'):
    raise ValueError(f'The data set {name!r} is one product; it has no others to open with it.')
  return _called(name, module.tasks, kwargs)


def _called(name: str, function: Callable[..., Any], settings: dict[str, Any]) -> Any:
  """Calls it, or says which setting does not fit."""
  known = dict(inspect.signature(function).parameters)
  rest = [key for key, one in known.items() if one.kind is one.VAR_KEYWORD]
  for key in rest:
    del known[key]
  for key in settings:
    if key not in known and not rest:
      close = difflib.get_close_matches(key, known, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      raise ValueError(f'The data set {name!r} has no {key}; it has {", ".join(known)}.{hint}')
  for key, one in known.items():
    if one.default is one.empty and key not in settings:
      raise ValueError(f'The data set {name!r} needs {key}.')
  return function(**settings)


def _module(name: str) -> ModuleType:
  if name not in names():
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(f'There is no data set {name!r}; known are {", ".join(names())}.{hint}')
  return importlib.import_module(f'{__name__}.{name}')
