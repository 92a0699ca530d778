"""Several processes that train together: how they start, and what happens when one is lost."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxdefect import train
from jaxdefect.train import checkpoint, processes

SCRIPT = pathlib.Path(__file__).with_name('process_run.py')
ROOT = SCRIPT.parent.parent.parent


def start(directory, *arguments, **environment) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), f'--directory={directory}', *arguments],
    env=os.environ
    | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}
    | environment,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen) -> None:
  error = process.communicate(timeout=120)[1]
  assert process.returncode == 0, error


def free_port() -> int:
  with socket.socket() as one:
    one.bind(('localhost', 0))
    return one.getsockname()[1]


def by_hand(directory) -> list[subprocess.Popen]:
  common = (f'--coordinator=localhost:{free_port()}', '--processes=2', '--devices=2')
  return [start(directory, *common, f'--process={rank}') for rank in range(2)]


def by_slurm(directory) -> list[subprocess.Popen]:
  common = {
    **{'SLURM_JOB_ID': str(free_port()), 'SLURM_STEP_NODELIST': 'localhost'},
    **{'SLURM_NTASKS': '2', 'SLURM_STEP_NUM_NODES': '1'},
  }
  return [
    start(directory, '--devices=2', **common, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
    for rank in range(2)
  ]


@pytest.fixture(scope='module')
def whole(linear, tmp_path_factory):
  """The run on one device, never interrupted."""
  directory = tmp_path_factory.mktemp('whole')
  finish(start(directory))
  return read(linear, directory)


def read(linear, directory):
  template = checkpoint.make_template(linear.make(average_decay=0.9), linear.SPEC)
  return checkpoint.load(directory, template, step='latest')


def assert_alike(found, expected):
  assert int(found.step) == int(expected.step)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('begin', [by_hand, by_slurm])
def test_two_processes_train_one_model(begin, linear, whole, tmp_path):
  running = begin(tmp_path)
  errors = [process.communicate(timeout=120)[1] for process in running]
  assert [process.returncode for process in running] == [0, 0], errors
  assert_alike(read(linear, tmp_path), whole)
  # One writer: each line of the log is there once.
  steps = [line['step'] for line in train.metric_log.read(tmp_path / 'metrics.jsonl')]
  assert steps == sorted(steps)
  assert steps.count(60) == 2  # means of the log, and an evaluation
  assert 'error' not in ''.join(errors)


def test_a_lost_process_ends_the_run_and_fewer_devices_go_on(linear, whole, tmp_path):
  first, second = by_hand(tmp_path)
  while len(train.metric_log.read(tmp_path / 'metrics.jsonl')) < 5:
    assert first.poll() is second.poll() is None
    time.sleep(0.01)
  first.send_signal(signal.SIGKILL)
  for process in (first, second):
    assert f'error: {processes.LOST}' in process.communicate(timeout=120)[1]
    assert process.returncode != 0
  finish(start(tmp_path))
  assert_alike(read(linear, tmp_path), whole)


def test_bad_input_in_one_process_is_said_there(tmp_path):
  (tmp_path / 'checkpoints' / '7').mkdir(parents=True)
  (tmp_path / 'checkpoints' / '7' / 'state').write_text('')
  running = by_hand(tmp_path)
  errors = [process.communicate(timeout=120)[1] for process in running]
  assert all(process.returncode != 0 for process in running)
  assert any('cannot be read' in error for error in errors)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--processes=2',), 'needs all three'),
    (('--coordinator=x:1', '--processes=2', '--process=2'), 'with 2 processes it can be 0 to 1'),
    (('--devices=2',), 'devices is 2; this process has 1 of kind cpu'),
  ],
)
def test_rejects_bad_arguments(arguments, message, tmp_path):
  process = start(tmp_path, *arguments)
  assert message in process.communicate(timeout=120)[1]
  assert process.returncode == 2
