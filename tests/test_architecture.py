"""The table of docs/architecture.md, checked: who may import whom, and what files may be called."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests.method_batches import NAMES

ROOT = pathlib.Path(__file__).parent.parent

# Room -> rooms that it may import. Itself is always allowed.
_BASE = {'contracts', 'ops'}
ALLOWED = {
  'contracts': set(),
  'ops': {'contracts'},
  'data': _BASE,
  'models': _BASE,
  'losses': _BASE,
  'optim': _BASE,
  'methods': _BASE | {'data', 'models', 'losses', 'optim'},
  'train': {'contracts'},
  'evaluate': _BASE | {'data', 'train'},
  'explain': _BASE | {'data', 'train', 'evaluate'},
  'review': _BASE | {'data', 'evaluate'},
  'convert': {'contracts', 'models'},
  'serve': {'data'},
}
GRAB_BAGS = {'util', 'utils', 'common', 'helper', 'helpers', 'misc', 'core'}
TORCH_ROOMS = {'convert'}
LONGEST_FILE = 400


def imported(source: str) -> list[str]:
  """Every module that a file imports, at any depth, as dotted names."""
  names = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names += [f'{node.module}.{alias.name}' for alias in node.names]
  return names


def violations(files: dict[str, str]) -> list[str]:
  """Checks files given as ``{'jaxdefect/room/file.py': text}``; returns one sentence per breach."""
  found = []
  for path, text in files.items():
    parts = pathlib.PurePosixPath(path).parts
    if parts[-1].removesuffix('.py') in GRAB_BAGS or set(parts[:-1]) & GRAB_BAGS:
      found.append(f'{path}: say in the name what the file is about')
    if len(text.splitlines()) > LONGEST_FILE:
      found.append(f'{path}: more than {LONGEST_FILE} lines; look for the second concept')
    room = parts[1] if len(parts) > 2 else None
    for name in imported(text):
      top = name.split('.')[0]
      standard = parts[-1] == '__main__.py' and top in sys.stdlib_module_names
      if room is None and top != 'jaxdefect' and not standard:
        found.append(f'{path}: {parts[-1]} of the package must import nothing, not {name}')
      if top in ('torch', 'torchvision', 'timm') and room not in TORCH_ROOMS:
        found.append(f'{path}: {name} may be imported in convert/ alone')
      if top in ('launch', 'configs', 'benchmarks', 'tests'):
        found.append(f'{path}: the library must not import {name}')
      if top == 'tensorflow':
        found.append(f'{path}: TensorFlow is not needed')
      if top != 'jaxdefect' or room is None:
        continue
      other = name.split('.')[1] if '.' in name else None
      if other == room or other is None or other == '__version__':
        continue
      if room not in ALLOWED:
        found.append(f'{path}: the room {room} is not in the plan')
      elif other not in ALLOWED[room]:
        found.append(f'{path}: {room} must not import {other}')
  return found


def tree() -> dict[str, str]:
  return {
    str(p.relative_to(ROOT)): p.read_text() for p in sorted((ROOT / 'jaxdefect').rglob('*.py'))
  }


def test_every_import_follows_the_plan():
  assert violations(tree()) == []


def test_every_room_of_the_plan_exists():
  assert {p.name for p in (ROOT / 'jaxdefect').iterdir() if p.is_dir()} - {'__pycache__'} == set(
    ALLOWED
  )


def test_the_plan_is_the_one_that_the_docs_show():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  assert all(f'`{room}/`' in text for room in ALLOWED)


@pytest.mark.parametrize(
  ('path', 'text'),
  [
    ('jaxdefect/models/resnet.py', 'from jaxdefect import losses'),
    ('jaxdefect/losses/margin.py', 'from jaxdefect.models import resnet'),
    ('jaxdefect/losses/margin.py', 'def f():\n  import jaxdefect.data.splits'),
    ('jaxdefect/train/fit.py', 'from jaxdefect.methods import classifier'),
    ('jaxdefect/methods/classifier.py', 'import torch'),
    ('jaxdefect/methods/classifier.py', 'from jaxdefect import train'),
    ('jaxdefect/ops/utils.py', ''),
    ('jaxdefect/ops/warp.py', 'pass\n' * (LONGEST_FILE + 1)),
    ('jaxdefect/__init__.py', 'import jax'),
    ('jaxdefect/__main__.py', 'import jax'),
    ('jaxdefect/data/batching.py', 'import launch.train'),
    ('jaxdefect/attic/thing.py', 'from jaxdefect import ops'),
  ],
)
def test_a_deliberate_break_is_found(path, text):
  assert violations({path: text}), path


def test_importing_the_package_imports_nothing_heavy():
  code = (
    "import sys, jaxdefect; print(sorted({'jax', 'numpy', 'torch', 'flax'} & set(sys.modules)))"
  )
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert result.stdout.strip() == '[]', result.stderr


def test_only_launch_sees_both_methods_and_train():
  both = []
  for path in [*ROOT.glob('jaxdefect/**/*.py'), *ROOT.glob('launch/*.py')]:
    names = imported(path.read_text())
    sees = {
      room for room in ('methods', 'train') for n in names if n.startswith(f'jaxdefect.{room}')
    }
    if len(sees) == 2:
      both.append(path.relative_to(ROOT).parts[0])
  assert both
  assert set(both) == {'launch'}


def test_methods_are_usable_without_the_libraries_of_the_pipeline():
  """Research code, and a GPU machine with JAX alone, need no grain, tfds or pycocotools."""
  code = (
    'import sys\n'
    "for name in ('grain', 'tensorflow_datasets', 'pycocotools', 'ml_collections'):\n"
    '  sys.modules[name] = None\n'
    'from jaxdefect import methods\n'
    f'print([methods.load(name)().init is not None for name in {NAMES}])'
  )
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert set(result.stdout.strip('[]\n').split(', ')) == {'True'}, result.stderr
