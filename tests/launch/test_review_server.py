"""The button of the page finds the launcher, in a checkout and in a wheel."""

import pathlib
import shutil

import pytest

import jaxdefect
from launch.review_server import Retraining

_LAUNCHER = """
import sys
if __name__ == '__main__':
  print('promoted:', *sys.argv[1:])
"""


@pytest.mark.parametrize('launchers', ['launch', 'jaxdefect/launch'])
def test_the_button_starts_the_launcher(tmp_path, monkeypatch, launchers):
  package = pathlib.Path(jaxdefect.__file__).parent
  (tmp_path / launchers).mkdir(parents=True)
  (tmp_path / 'jaxdefect').mkdir(exist_ok=True)
  for name in ('__init__.py', '__main__.py'):
    shutil.copy(package / name, tmp_path / 'jaxdefect' / name)
  (tmp_path / launchers / '__init__.py').touch()
  (tmp_path / launchers / 'review.py').write_text(_LAUNCHER)
  run = tmp_path / 'run'
  (run / 'review').mkdir(parents=True)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  job = Retraining(run)
  job.start('anna')
  job._child.wait(60)
  assert job.job() == {
    'state': 'done',
    'said': f'promoted: --workdir={run} --retrain --noprogress --reviewer=anna',
  }
