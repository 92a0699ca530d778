"""What a user installs: a wheel made from the sdist runs the quick start from anywhere."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

pytest.importorskip('jaxdefect.methods.classifier')

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> pathlib.Path:
  """A folder with the sdist, the wheel that was made from it, and that unpacked in ``site``."""
  folder = tmp_path_factory.mktemp('wheel')
  command = [sys.executable, '-m', 'build', '--outdir', folder, ROOT]
  subprocess.run(command, check=True, capture_output=True)
  [wheel] = folder.glob('jaxdefect-*.whl')
  zipfile.ZipFile(wheel).extractall(folder / 'site')
  return folder


def run(built: pathlib.Path, *arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-P', '-m', 'jaxdefect', *arguments],
    env=os.environ | {'PYTHONPATH': str(built / 'site'), 'JAX_PLATFORMS': 'cpu'},
    cwd=cwd,
    text=True,
    capture_output=True,
  )


def test_wheel_trains_and_predicts_far_from_the_checkout(built, tmp_path):
  trained = run(
    built, 'train', '--config=classifier_synthetic:smoke', '--workdir=mine', cwd=tmp_path
  )
  assert trained.returncode == 0, trained.stderr
  assert json.loads((tmp_path / 'mine' / 'report.json').read_text())['metrics']['accuracy'] >= 0
  listed = run(built, cwd=tmp_path)
  assert '  train           Trains, evaluates and reports' in listed.stdout
  explained = run(built, 'train', '--help', cwd=tmp_path).stdout
  assert 'jaxdefect train --config=FILE' in explained
  assert 'python -m launch' not in explained
  versions = json.loads((tmp_path / 'mine' / 'report.json').read_text())['versions']
  assert versions['jaxdefect']


def test_wheel_has_nothing_but_the_package(built):
  [wheel] = built.glob('jaxdefect-*.whl')
  names = zipfile.ZipFile(wheel).namelist()
  tops = {name.partition('/')[0] for name in names}
  assert len(tops) == 2
  assert 'jaxdefect' in tops
  assert 'jaxdefect/py.typed' in names
  assert 'jaxdefect/configs/classifier_folder.py' in names
  assert any(name.endswith('entry_points.txt') for name in names)


def test_sdist_has_what_the_tests_need(built):
  [archive] = built.glob('jaxdefect-*.tar.gz')
  with tarfile.open(archive) as opened:
    names = {name.partition('/')[2] for name in opened.getnames()}
  assert {'README.md', 'LICENSE', 'Makefile', 'launch/train.py', 'tests/test_wheel.py'} <= names
  assert not any(name.startswith(('runs/', '.venv/', 'site/')) for name in names)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('trian',), "there is no verb 'trian'; did you mean 'train'?"),
    (('train', '--config=clasifier_neu'), "'clasifier_neu' does not exist; did you mean"),
  ],
)
def test_a_slip_is_said(built, tmp_path, arguments, message):
  finished = run(built, *arguments, cwd=tmp_path)
  assert finished.returncode == 2
  assert message in finished.stderr
