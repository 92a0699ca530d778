"""Checkpoints: what is kept, what is refused, and what survives a crash."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import train
from jaxdefect.train import checkpoint

SCRIPT = pathlib.Path(__file__).parent / 'linear_run.py'
ROOT = SCRIPT.parents[2]


@pytest.fixture
def template(linear):
  return checkpoint.make_template(linear.make(), linear.SPEC)


@pytest.fixture
def state(linear):
  return jax.jit(lambda key: linear.make().init(key, linear.SPEC))(jax.random.key(0))


def save(directory, state, metrics, record=None):
  """Saves steps 1, 2, ... with the given metrics, through one manager."""
  first = 1 + max([int(p.name) for p in (directory / 'checkpoints').glob('*')], default=0)
  with contextlib.closing(checkpoint.Checkpoints(directory)) as store:
    for step, metric in enumerate(metrics, first):
      store.save(state._replace(step=jnp.array(step)), record or {}, metric=metric)


def steps(directory):
  return sorted(int(path.name) for path in (directory / 'checkpoints').iterdir())


def test_restores_every_bit(state, template, tmp_path):
  odd = np.array([[np.pi, -0.0], [1e-40, 1e30], [np.inf, 7.0]], np.float32)
  state = state._replace(params=state.params | {'kernel': jnp.array(odd)})
  save(tmp_path, state, [None], {'sums': [0.1, 1 / 3]})
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as store:
    restored = store.restore(template)
  expected = state._replace(step=jnp.array(1))
  assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
  assert restored.state.params['kernel'].tobytes() == odd.tobytes()
  assert restored.record == {'sums': [0.1, 1 / 3]}


@pytest.mark.parametrize(
  ('metrics', 'kept'),
  [
    ([None, None, None], [3]),
    ([0.5, 0.9, 0.7], [2, 3]),
    ([0.5, 0.9, None, 0.7, None], [2, 5]),
    ([0.5, 0.9, 0.9], [3]),
    ([-2.0, -3.0], [1, 2]),
  ],
)
def test_newest_and_best_are_kept(state, template, tmp_path, metrics, kept):
  save(tmp_path, state, metrics)
  assert steps(tmp_path) == kept
  best = checkpoint.load(tmp_path, template, step='best')
  assert int(best.step) == kept[0]
  assert int(checkpoint.load(tmp_path, template).step) == kept[0]
  assert int(checkpoint.load(tmp_path, template, step='latest').step) == kept[-1]


def test_resumed_run_remembers_its_best(state, template, tmp_path):
  save(tmp_path, state, [0.9, 0.1])
  save(tmp_path, state, [0.2, 0.3])
  assert steps(tmp_path) == [1, 4]
  save(tmp_path, state, [0.95])
  assert steps(tmp_path) == [5]
  assert int(checkpoint.load(tmp_path, template).step) == 5


def test_empty_step_folder_is_no_step(state, template, tmp_path):
  save(tmp_path, state, [0.5])
  (tmp_path / 'checkpoints' / '2').mkdir()
  assert int(checkpoint.load(tmp_path, template, step='latest').step) == 1
  assert steps(tmp_path) == [1, 2]  # reading changes nothing
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as store:
    assert int(store.restore(template).state.step) == 1
    store.save(state._replace(step=jnp.array(2)), {}, metric=0.7)
  assert int(checkpoint.load(tmp_path, template, step=2).step) == 2


def test_empty_step_folder_alone_is_no_run(template, tmp_path):
  (tmp_path / 'checkpoints' / '7').mkdir(parents=True)
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as store:
    assert store.restore(template) is None
  assert steps(tmp_path) == []


def test_damaged_checkpoint_gives_way_to_an_older_one(state, template, tmp_path):
  save(tmp_path, state, [0.5, 0.1])
  for path in (tmp_path / 'checkpoints' / '2' / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(ValueError, match='checkpoints/2 cannot be read'):
    checkpoint.load(tmp_path, template, step=2)
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as store:
    assert int(store.restore(template).state.step) == 1


def test_a_run_is_not_restarted_over_its_only_damaged_checkpoint(state, template, tmp_path):
  save(tmp_path, state, [0.5])
  for path in (tmp_path / 'checkpoints' / '1' / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with (
    contextlib.closing(checkpoint.Checkpoints(tmp_path)) as store,
    pytest.raises(ValueError, match='checkpoints/1 cannot be read'),
  ):
    store.restore(template)
  assert steps(tmp_path) == [1]


def test_other_architecture_is_named(linear, state, tmp_path):
  save(tmp_path, state, [None])
  wider = checkpoint.make_template(linear.make(features=2), linear.SPEC)
  with pytest.raises(
    ValueError,
    match=r'architecture: params/kernel is float32\[3, 2\] there and float32\[2, 2\] here',
  ):
    checkpoint.load(tmp_path, wider)
  without = state._replace(params={'kernel': state.params['kernel']})
  with pytest.raises(ValueError, match=r'params/bias is float32\[2\] there and missing here'):
    checkpoint.load(tmp_path, jax.eval_shape(lambda: without))
  averaged = checkpoint.make_template(linear.make(average_decay=0.9), linear.SPEC)
  with pytest.raises(
    ValueError, match=r'average_params/bias is missing there and float32\[2\] here'
  ):
    checkpoint.load(tmp_path, averaged)
  with pytest.raises(ValueError, match='another architecture'):
    train.fit(
      linear.make(features=2),
      jax.random.key(0),
      linear.SPEC,
      linear.Batches(),
      steps=3,
      directory=tmp_path,
      progress=False,
    )
  assert steps(tmp_path) == [1]


def test_missing_checkpoints_are_said(state, template, tmp_path):
  with pytest.raises(ValueError, match='holds no checkpoints'):
    checkpoint.load(tmp_path, template)
  assert not list(tmp_path.iterdir())
  save(tmp_path, state, [0.5, 0.1])
  with pytest.raises(ValueError, match=r'holds no step 9; steps that can be read: 1, 2\.'):
    checkpoint.load(tmp_path, template, step=9)


def test_killed_three_times_equals_uninterrupted(linear, tmp_path):
  """SIGKILL at random moments; the resumed run ends with the same bits and the same log."""
  environment = os.environ | {
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }

  def start(name):
    return subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path / name)], env=environment)

  def num_lines():
    return len(train.metric_log.read(tmp_path / 'killed' / 'metrics.jsonl'))

  assert start('whole').wait(timeout=120) == 0
  delays = [random.uniform(0, 0.5) for _ in range(3)]
  for delay in delays:
    lines = num_lines()
    process = start('killed')
    while num_lines() <= lines:
      assert process.poll() is None
      time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
  assert start('killed').wait(timeout=120) == 0

  template = checkpoint.make_template(linear.make(average_decay=0.9), linear.SPEC)
  for step in ('latest', 'best'):
    whole, killed = (
      checkpoint.load(tmp_path / name, template, step=step) for name in ('whole', 'killed')
    )
    assert [leaf.tobytes() for leaf in jax.device_get(jax.tree.leaves(killed))] == [
      leaf.tobytes() for leaf in jax.device_get(jax.tree.leaves(whole))
    ], f'killed after {delays}'
  assert int(killed.step) <= linear.STEPS

  def lines(name):
    times = ('seconds', 'images_per_second', 'data_stall')
    return [
      {key: value for key, value in line.items() if key not in times}
      for line in train.metric_log.read(tmp_path / name / 'metrics.jsonl')
    ]

  assert lines('killed') == lines('whole')
  assert steps(tmp_path / 'killed') == steps(tmp_path / 'whole')
