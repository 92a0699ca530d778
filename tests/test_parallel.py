"""Eight devices, or two processes of two, train every method as one device does."""

import functools
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import parallel_run
from tests.method_batches import NAMES
from tests.method_settings import STEPLESS, VIEWS

GRADIENT = [name for name in NAMES if name not in STEPLESS]


@functools.cache
def on_one_device(name: str, way: str, views: bool = False) -> dict[str, np.ndarray]:
  return parallel_run.train(name, way, 1, views=views)


def assert_alike(name: str, way: str, found: dict[str, np.ndarray], views: bool = False) -> None:
  expected, tolerance = on_one_device(name, way, views), parallel_run.WAYS[way].tolerance
  assert sorted(found) == sorted(expected)
  for key, value in expected.items():
    assert value.dtype == found[key].dtype
    np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize('name', GRADIENT)
def test_eight_devices_train_as_one(name):
  """Statistics, negatives, prototypes, tasks and gradients span the devices."""
  for way, views in (('float64', name in VIEWS), ('float32', False)):
    assert_alike(name, way, parallel_run.train(name, way, 8, views=views), views)


@pytest.mark.parametrize('name', sorted({'contrastive_margin', 'deep_svdd'} & {*GRADIENT}))
def test_pmap_trains_as_one(name):
  assert_alike(name, 'float64', parallel_run.train(name, 'float64', 8, transform='pmap'))


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
  """Methods trained by two processes with two devices each."""
  folder = tmp_path_factory.mktemp('processes')
  given, path = folder / 'starts.pickle', folder / 'trained.npz'
  given.write_bytes(parallel_run.starts(GRADIENT))
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  script = pathlib.Path(parallel_run.__file__)
  environment = os.environ | {
    'PYTHONPATH': str(script.parent.parent),
    'JAX_NUM_CPU_DEVICES': '2',
  }
  running = [
    subprocess.Popen(
      [sys.executable, str(script), str(rank), '2', str(port), str(given), str(path)],
      env=environment,
    )
    for rank in range(2)
  ]
  assert [process.wait(timeout=1800) for process in running] == [0, 0]
  with np.load(path) as arrays:
    return dict(arrays)


@pytest.mark.parametrize('name', GRADIENT)
def test_two_processes_train_as_one(name, two_processes):
  for way in parallel_run.WAYS:
    start = f'{name}|{way}|'
    found = {
      key.removeprefix(start): v for key, v in two_processes.items() if key.startswith(start)
    }
    assert_alike(name, way, found)
