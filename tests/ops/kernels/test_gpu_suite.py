"""The suite for a GPU: counts, fractions, and parts that fail or take too long."""

import os
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import gpu, rates


def test_product_flops_count_every_multiplication_and_addition():
  def function(x, kernel, matrix):
    y = lax.conv_general_dilated(
      x,
      kernel,
      (2, 2),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=2,
    )
    return jax.jit(lambda y: jnp.tanh(y.reshape(-1, 6)) @ matrix)(y)

  shapes = (1, 8, 6, 4), (3, 3, 2, 6), (6, 5)
  convolution = 2 * (4 * 3 * 6) * (3 * 3 * 2)
  product = 2 * 12 * 6 * 5
  operands = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  assert rates.product_flops(function, *operands) == convolution + product


def test_fractions_are_of_what_was_measured():
  found = rates.use(
    seconds=2.0,
    images=8,
    model_flops=100,
    cost={'flops': 60.0, 'bytes accessed': 50.0},
    rates={'bfloat16': 200.0, 'copy': 100.0},
    dtype='bfloat16',
  )
  assert found['images_per_second'] == 4
  assert found['fraction_of_matrix_rate'] == {'model': 0.25, 'compiled program': 0.15}
  assert found['fraction_of_copy_rate'] == 0.25


def test_without_rates_there_are_no_fractions():
  found = rates.use(
    seconds=2.0, images=8, model_flops=100, cost=None, rates={'error': 'lost'}, dtype='float32'
  )
  assert found['images_per_second'] == 4
  assert found['fraction_of_matrix_rate'] == {'model': None, 'compiled program': None}
  assert found['fraction_of_copy_rate'] is None


def test_device_rates_are_positive():
  found = rates.device_rates(side=16, numbers=64, rounds=1)
  assert set(found) == {'bfloat16', 'float32', 'float32 highest', 'copy'}
  assert min(found.values()) > 0


def test_a_part_that_ends_well_has_no_error():
  assert 'error' not in gpu.run_part([sys.executable, '-c', 'pass'], 60)


def test_a_part_that_fails_leaves_the_end_of_its_messages():
  found = gpu.run_part([sys.executable, '-c', 'raise SystemExit("no memory left")'], 60)
  assert found['error'] == 'ended with 1: no memory left\n'


def test_a_part_that_takes_too_long_ends_with_what_it_started(tmp_path):
  file = tmp_path / 'child'
  code = (
    'import subprocess, sys\n'
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    f'open({str(file)!r}, "w").write(str(child.pid))\n'
    'child.wait()'
  )
  found = gpu.run_part([sys.executable, '-c', code], 5)
  assert found['error'].startswith('stopped after 5 s')
  child = int(file.read_text())
  for _ in range(100):
    if not _runs(child):
      return
    time.sleep(0.1)
  pytest.fail('what the part had started still runs')


def _runs(process: int) -> bool:
  try:
    os.kill(process, 0)
    with open(f'/proc/{process}/stat') as file:
      return file.read().rsplit(')', 1)[1].split()[0] != 'Z'  # ended, but not yet waited for
  except (ProcessLookupError, FileNotFoundError):
    return False
