"""One readable ``model.py`` out of the files of ``twins`` that a module is made of."""

import ast
import inspect
import pathlib
import sys
from types import ModuleType
from typing import Any

from jaxdefect.convert import twins

_PACKAGE = twins.__name__
_HEAD = '''"""{what}, as it was exported from jaxdefect {version}: needs PyTorch alone.

  from model import load

  model = load('.')                       # the folder of this file
  said = model(images)                    # uint8 [N, H, W, 3], of any size
  dict(zip(model.outputs, said)), model.classes
"""
'''


def source(module: Any) -> str:
  """The code of a twin and of ``load``, as one file that imports torch and nothing of ours.

  Args:
    module: an instance of a family of ``twins``.

  Returns:
    Python source: the files of ``twins`` that it needs, each after those that it imports.
  """
  needed = dict.fromkeys(
    type(part).__module__ for part in module.modules() if type(part).__module__.startswith(_PACKAGE)
  )
  files: dict[str, ModuleType] = {}
  for name in (*needed, f'{_PACKAGE}.package'):
    _collect(name, files)
  plain, named, bodies = set(), {}, []
  for name, file in files.items():
    text = pathlib.Path(inspect.getfile(file)).read_text(encoding='utf-8')
    bodies.append(_section(name, text, plain, named))
  lines = [f'import {name}' for name in sorted(plain)]
  lines += [f'from {name} import {", ".join(sorted(what))}' for name, what in sorted(named.items())]
  head = _HEAD.format(what=type(module).__name__, version=_version())
  return head + '\n' + '\n'.join(lines) + '\n\n\n' + '\n\n\n'.join(bodies) + '\n'


def _version() -> str:
  from importlib import metadata

  try:
    return metadata.version('jaxdefect')
  except metadata.PackageNotFoundError:
    return '(source)'


def _collect(name: str, files: dict[str, ModuleType]) -> None:
  """Adds a file of ``twins`` behind all that it imports."""
  if name in files:
    return
  file = sys.modules[name]
  tree = ast.parse(inspect.getsource(file))
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith(_PACKAGE):
      _collect(node.module or '', files)
  files[name] = file


def _section(name: str, text: str, plain: set[str], named: dict[str, set[str]]) -> str:
  """A file without its imports, which are added to those of all; its docstring as a comment."""
  tree = ast.parse(text)
  end = 0
  for node in tree.body:
    if isinstance(node, ast.Import):
      plain |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      if not (node.module or '').startswith(_PACKAGE):
        named.setdefault(node.module or '', set()).update(alias.name for alias in node.names)
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
      break
    end = node.end_lineno or end
  told = ast.get_docstring(tree) or ''
  title = name.rsplit('.', 1)[1]
  comment = [f'# ---- {title} ' + '-' * (92 - len(title)), '#']
  comment += [f'# {line}'.rstrip() for line in told.splitlines()]
  return '\n'.join([*comment, '', *text.splitlines()[end:]]).rstrip()
