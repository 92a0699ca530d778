"""A method is two files more, or three files less: nothing else has to know."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from jaxdefect import methods
from tests.method_batches import NAMES

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('[a-z]*_*.py'))
# What looks at all methods, and is quick.
ALL = (
  *('test_methods.py', 'test_architecture.py', 'test_configs.py'),
  *('launch/test_results_page.py', 'benchmarks/test_collectives.py'),
)
PARTS = {'classifier', 'patchcore'} & {*methods.names()}  # what a hybrid is made of
QUICK = 'factory or unknown or names_real or deliberate or architecture or results_page or counts'


def of_config(config: str) -> str:
  """The method of a config: the longest name that it begins with."""
  return max((n for n in methods.names() if config.startswith(f'{n}_')), key=len)


def used(path: pathlib.Path) -> set[str]:
  """The methods that a file names, itself or by a config."""
  text = path.read_text()
  named = {n for n in methods.names() if re.search(rf"methods\.load\(\s*'{n}'", text)}
  imported = r"from configs import .*\b{}\b|['\"/]{}\b"
  named |= {of_config(c) for c in CONFIGS if re.search(imported.format(c, c), text)}
  return named


def declared(path: pathlib.Path) -> set[str]:
  """The methods without which a test file is skipped, and the one that it is about."""
  asked = re.findall(r"importorskip\('(?:jaxdefect\.methods|configs)\.(\w+)'\)", path.read_text())
  own = {n for n in methods.names() if path.stem.startswith(f'test_{n}')}
  own |= {of_config(name) for name in asked if name in CONFIGS}
  return own | {name for name in asked if name in methods.names()}


def test_every_test_says_which_methods_it_needs():
  for path in sorted((ROOT / 'tests').rglob('*.py')):  # with what tests share
    parts = PARTS if 'hybrid' in declared(path) else set()
    assert used(path) | parts <= declared(path), path


def test_only_what_is_made_of_others_may_miss_one():
  missing = {*methods.names()} - {*NAMES}
  assert missing <= {'hybrid'}
  assert not missing or len(PARTS) < 2


def test_no_room_names_a_method():
  for room in ('contracts', 'data', 'ops', 'models', 'losses', 'optim', 'train', 'evaluate'):
    for path in (ROOT / 'jaxdefect' / room).rglob('*.py'):
      assert not used(path), path


@pytest.fixture
def checkout(tmp_path):
  """The project's own files, as git lists them, in a place where they may be changed."""
  listed = subprocess.run(
    ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    **{'cwd': ROOT, 'check': True, 'capture_output': True, 'text': True},
  )
  for name in filter(None, listed.stdout.split('\0')):
    if (ROOT / name).is_file():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(ROOT / name, tmp_path / name)
  return tmp_path


def run_tests(folder: pathlib.Path, *arguments: str) -> str:
  """Runs pytest there; what it printed."""
  environment = {**os.environ, 'PYTHONPATH': str(folder)}
  command = [sys.executable, '-m', 'pytest', '-x', '-p', 'no:cacheprovider', *arguments]
  done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.mark.parametrize('name', sorted({'spade'} & {*methods.names()}))
def test_a_method_can_be_taken_out(checkout, name):
  gone = [checkout / 'jaxdefect' / 'methods' / f'{name}.py']
  gone += (checkout / 'configs').glob(f'{name}_*.py')
  gone += (checkout / 'tests').rglob(f'test_{name}*.py')
  for path in gone:
    path.unlink()
  run_tests(checkout, '--collect-only', 'tests')
  printed = run_tests(checkout, '-k', QUICK, *(f'tests/{path}' for path in ALL))
  assert re.search(r'\d+ passed', printed)


def test_a_method_is_two_files(checkout):
  """Those of docs/add_a_method.md, as they stand there."""
  page = (ROOT / 'docs' / 'add_a_method.md').read_text()
  files = dict(re.findall(r'^```python title="([\w/]+\.py)"\n(.*?)^```', page, re.M | re.S))
  (method,) = (pathlib.PurePath(p).stem for p in files if p.startswith('jaxdefect/methods/'))
  assert len(files) == 2
  assert method not in methods.names()
  for path, text in files.items():
    assert not (checkout / path).exists()
    (checkout / path).write_text(text)
  printed = run_tests(checkout, '-k', method, 'tests/test_methods.py', 'tests/test_configs.py')
  passed = re.search(r'(\d+) passed', printed)
  assert passed
  assert int(passed[1]) >= 5
  run_tests(checkout, 'tests/test_architecture.py', 'tests/test_api.py')
