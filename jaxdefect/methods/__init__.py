"""One file per method; the folder is the list, and importing it registers nothing.

>>> from jaxdefect import methods
>>> 'contrastive_margin' in methods.names()
True
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable

from jaxdefect.contracts import Method


def names() -> tuple[str, ...]:
  """Lists the methods: the modules of this folder."""
  return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__)))


def load(name: str) -> Callable[..., Method]:
  """Imports one method and returns its factory.

  Args:
    name: a name from ``names()``.

  Returns:
    The module's keyword-only ``make(...) -> Method``.

  Raises:
    ValueError: there is no such method.
  """
  if name not in names():
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f'; did you mean {close[0]!r}?' if close else ''
    raise ValueError(f'there is no method {name!r} (there are: {", ".join(names())}){hint}')
  return importlib.import_module(f'{__name__}.{name}').make
