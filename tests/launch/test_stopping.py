"""A run that is asked to stop keeps what it has, and goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from jaxdefect import train as training
from jaxdefect.train.report import Report
from launch import alone, command, stopping, train

pytest.importorskip('jaxdefect.methods.classifier')

FLAGS = ['--config=classifier_synthetic:smoke', '--config.steps=3', '--config.checkpoint_every=3']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_kept_and_the_second_is_not_caught(number):
  before = signal.getsignal(number)
  with stopping.when_asked() as stop:
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop()
    assert signal.getsignal(number) is before
  with stopping.when_asked():
    assert signal.getsignal(number) is not before
  assert signal.getsignal(number) is before


def test_other_threads_do_not_listen():
  found = []

  def listen():
    with stopping.when_asked() as stop:
      found.append(stop)

  thread = threading.Thread(target=listen)
  thread.start()
  thread.join()
  assert found == [None]


def test_a_process_that_is_killed_leaves_its_folder_to_others(tmp_path):
  code = (
    'import sys, time; from launch import alone\n'
    f'with alone.in_folder({str(tmp_path)!r}):\n  print("in", flush=True)\n  time.sleep(600)'
  )
  process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
  assert process.stdout is not None
  assert process.stdout.readline() == b'in\n'
  with pytest.raises(ValueError, match='by another process'), alone.in_folder(tmp_path):
    pass
  process.kill()
  process.communicate()
  with alone.in_folder(tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_a_run_stopped_before_its_first_checkpoint_goes_on(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'unused')

  def run(directory):
    monkeypatch.setattr(sys, 'argv', ['launch', *FLAGS, f'--workdir={directory}'])
    command.run(train.define, train.main)

  push = Report.push

  def push_and_ask(self, step, scalars, images):
    push(self, step, scalars, images)
    os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Report, 'push', push_and_ask)
  with pytest.raises(SystemExit) as exit_:
    run(tmp_path / 'stopped')
  assert exit_.value.code == 130
  assert 'stopped after step 1 of 3; the same command goes on' in capsys.readouterr().err
  assert [path.name for path in (tmp_path / 'stopped' / 'checkpoints').iterdir()] == ['1']

  monkeypatch.setattr(Report, 'push', push)
  # As long as the one that stops writes its checkpoint, nobody else goes on.
  with alone.in_folder(tmp_path / 'stopped'), pytest.raises(SystemExit) as exit_:
    run(tmp_path / 'stopped')
  assert exit_.value.code == 2
  assert 'stopped is being trained by another process' in capsys.readouterr().err
  run(tmp_path / 'stopped')
  assert 'holds a run of 1 steps; going on from there' in capsys.readouterr().err
  run(tmp_path / 'whole')
  stopped, whole = (
    training.load_fitted(tmp_path / name / 'fitted.safetensors') for name in ('stopped', 'whole')
  )
  jax.tree.map(np.testing.assert_array_equal, stopped.params, whole.params)
  reports = [
    json.loads((tmp_path / name / 'report.json').read_text()) for name in ('stopped', 'whole')
  ]
  assert reports[0]['metrics'] == reports[1]['metrics']
