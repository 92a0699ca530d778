"""The loop: devices, resuming, what it refuses, and what it leaves behind."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdefect import train


@pytest.fixture
def fit(linear):
  """``fit`` on the toy; the method takes its arguments from ``make``."""

  def run(steps, *, make=None, batches=None, **arguments):
    return train.fit(
      linear.make(**make or {}),
      jax.random.key(0),
      linear.SPEC,
      linear.Batches() if batches is None else batches,
      steps=steps,
      **{'progress': False} | arguments,
    )

  return run


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def lines_without_times(directory):
  lines = train.metric_log.read(directory / 'metrics.jsonl')
  times = ('seconds', 'images_per_second', 'data_stall')
  return [{k: v for k, v in line.items() if k not in times} for line in lines]


def test_loss_falls_and_the_log_holds_means(fit, linear, tmp_path):
  fit(40, directory=tmp_path, log_every=20, batches=linear.Batches(size=33))
  first, last = train.metric_log.read(tmp_path / 'metrics.jsonl')
  assert (first['step'], last['step']) == (20, 40)
  assert last['loss'] < first['loss']
  assert 0 < first['seconds'] < last['seconds']
  assert last['images_per_second'] > 0

  # The same 40 steps, summed by hand: 32 valid examples each.
  method, batches = linear.make(), linear.Batches(size=33)
  init_key, _, run_key = jax.random.split(jax.random.key(0), 3)
  state, hits = method.init(init_key, linear.SPEC), []
  step = jax.jit(method.step)
  for _ in range(40):
    state, scalars = step(run_key, state, next(batches))
    hits.append(float(scalars['accuracy'][0]))
  np.testing.assert_allclose(first['accuracy'], sum(hits[:20]) / 640, rtol=1e-6)
  np.testing.assert_allclose(last['accuracy'], sum(hits[20:]) / 640, rtol=1e-6)


def test_resumed_equals_uninterrupted(fit, linear, tmp_path):
  arguments = {
    'make': {'average_decay': 0.9},
    'evaluate': linear.corner,
    'evaluate_every': 9,
    'best': 'corner',
    'log_every': 5,
    'checkpoint_every': 4,
  }
  whole = fit(22, directory=tmp_path / 'whole', **arguments)

  # A run that stops between two lines of its log: step 12 is saved, 13 and 14 are lost.
  class Stopped(Exception):
    pass

  class Stopping(linear.Batches):
    def __next__(self):
      if self._position == 14:
        raise Stopped
      return super().__next__()

  with pytest.raises(Stopped):
    fit(22, directory=tmp_path / 'cut', batches=Stopping(), **arguments)
  # A crash may tear a line, and lines may be newer than the newest checkpoint.
  with (tmp_path / 'cut' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 13, "loss": 9.0}\n{"step": 14, "lo')
  resumed = fit(22, directory=tmp_path / 'cut', **arguments)

  assert_same(resumed, whole)
  assert lines_without_times(tmp_path / 'cut') == lines_without_times(tmp_path / 'whole')


def test_a_run_that_is_stopped_keeps_its_last_step(fit, linear, tmp_path):
  arguments = {'log_every': 5, 'checkpoint_every': 100, 'evaluate': linear.corner}
  whole = fit(12, directory=tmp_path / 'whole', **arguments)
  answers = iter([False, False, True])
  with pytest.raises(KeyboardInterrupt, match='stopped after step 3 of 12'):
    fit(12, directory=tmp_path / 'cut', stop=lambda: next(answers), **arguments)
  resumed = fit(12, directory=tmp_path / 'cut', stop=lambda: False, **arguments)
  assert_same(resumed, whole)
  assert lines_without_times(tmp_path / 'cut') == lines_without_times(tmp_path / 'whole')
  # After the last step there is nothing to stop.
  assert_same(fit(12, stop=lambda: True, directory=tmp_path / 'whole', **arguments), whole)


def test_finished_run_is_left_alone(fit, linear, tmp_path):
  for steps in (0, 3):
    directory = tmp_path / str(steps)
    whole = fit(steps, directory=directory, evaluate=linear.corner)
    before = (directory / 'metrics.jsonl').read_text()
    assert_same(fit(steps, directory=directory, evaluate=pytest.fail), whole)
    assert (directory / 'metrics.jsonl').read_text() == before


def test_zero_steps_prepare_and_save(fit, linear, tmp_path):
  def prepare(key, state, references):
    del key
    return state._replace(model_state=state.model_state | {'seen': np.float32(references)})

  state = fit(0, directory=tmp_path, make={'prepare': prepare}, references=5)
  template = train.checkpoint.make_template(linear.make(), linear.SPEC)
  assert_same(train.checkpoint.load(tmp_path, template), state)
  assert float(state.model_state['seen']) == 5
  assert int(state.step) == 0


def test_two_devices_equal_one(fit):
  with jax.enable_x64(True):
    one = fit(6, make={'average_decay': 0.9, 'empty': False})
    two = fit(
      6,
      make={'average_decay': 0.9, 'empty': False, 'axis_name': train.parallel.AXIS_NAME},
      devices=2,
    )
    assert one.params['kernel'].dtype == jnp.float64
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-9), two, one)


def test_more_devices_can_go_on(fit, tmp_path):
  with jax.enable_x64(True):
    # jaxlib 0.11.2 crashes when pmap is given arrays without elements.
    make = {'empty': False}
    whole = fit(6, make=make)
    fit(4, directory=tmp_path, make=make)
    make = {'axis_name': train.parallel.AXIS_NAME, **make}
    resumed = fit(6, directory=tmp_path, make=make, devices=2)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-9), resumed, whole)


def test_pretrained_reaches_init(fit):
  state = fit(2, pretrained={'bias': jnp.array([3.0, 4.0])})
  np.testing.assert_array_equal(state.params['bias'], [3, 4])


def test_frozen_stays_and_state_is_the_steps(fit):
  state = fit(3)
  np.testing.assert_array_equal(state.params['bias'], 0)
  assert (int(state.step), float(state.model_state['seen'])) == (3, 3)


def test_not_finite_stops_before_it_is_saved(fit, linear, tmp_path):
  class Poisoned(linear.Batches):
    def __next__(self):
      batch = super().__next__()
      if self._position == 8:
        batch['image'] = np.full(batch['image'].shape, np.nan)
      else:
        batch['image'] = batch['image'].astype(float)
      return batch

  with pytest.raises(FloatingPointError, match=r'loss is nan in step 8;'):
    fit(20, batches=Poisoned(), directory=tmp_path, checkpoint_every=3, log_every=4)
  template = train.checkpoint.make_template(linear.make(), linear.SPEC)
  assert int(train.checkpoint.load(tmp_path, template).step) == 6
  assert [line['step'] for line in lines_without_times(tmp_path)] == [4]


def test_undefined_metric_is_null_and_never_best(fit, linear, tmp_path):
  values = iter([0.5, float('nan'), 0.1])
  fit(
    3,
    directory=tmp_path,
    evaluate=lambda state: {'auroc': next(values)},
    evaluate_every=1,
    best='auroc',
  )
  seen = [line['evaluation/auroc'] for line in lines_without_times(tmp_path) if len(line) == 2]
  assert seen == [0.5, None, 0.1]
  template = train.checkpoint.make_template(linear.make(), linear.SPEC)
  assert int(train.checkpoint.load(tmp_path, template, step='best').step) == 1


def test_plain_lines_where_there_is_no_terminal(fit, capsys):
  fit(4, progress=True, log_every=2)
  shown = capsys.readouterr().err.splitlines()
  assert shown[-1].startswith('step 4/4  loss ')
  assert 'accuracy' in shown[-1]
  assert 'img/s' in shown[-1]
  assert 'ETA 0:00:00' in shown[-1]


def test_tensorboard_gets_the_scalars(fit, tmp_path, monkeypatch):
  written = []

  class Writer:
    def __init__(self, directory):
      assert directory == str(tmp_path / 'tensorboard')

    def add_scalar(self, name, value, step):
      written.append((name, value, step))

    def close(self):
      written.append('closed')

  module = type(sys)('tensorboard.summary')
  module.Writer = Writer
  monkeypatch.setitem(sys.modules, 'tensorboard', type(sys)('tensorboard'))
  monkeypatch.setitem(sys.modules, 'tensorboard.summary', module)
  fit(2, directory=tmp_path, log_every=2, tensorboard=True)
  line = json.loads((tmp_path / 'metrics.jsonl').read_text())
  assert ('loss', line['loss'], 2) in written
  assert written[-1] == 'closed'


def test_tensorboard_missing_is_said(fit, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboard', None)
  monkeypatch.setitem(sys.modules, 'tensorboard.summary', None)
  with pytest.raises(ValueError, match='pip install tensorboard'):
    fit(2, directory=tmp_path / 'run', tensorboard=True)
  assert not (tmp_path / 'run').exists()
  fit(1, tensorboard=True)  # without a folder there is nothing to write


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'steps': -1}, 'steps is -1'),
    ({'steps': 1, 'log_every': 0}, 'log_every is 0'),
    ({'steps': 1, 'best': 'accuracy'}, 'no evaluate'),
    ({'steps': 1, 'devices': 99}, 'devices is 99; this process has'),
    ({'steps': 2, 'batches': iter([])}, 'ended after 0 of 2 steps'),
    ({'steps': 1, 'make': {'prepare': lambda k, s, r: s._replace(params={})}}, 'prepare'),
  ],
)
def test_rejects_bad_arguments(fit, arguments, message):
  with pytest.raises(ValueError, match=message):
    fit(**arguments)


def test_rejects_what_cannot_resume(fit, tmp_path):
  with pytest.raises(ValueError, match='get_state'):
    fit(1, batches=iter([]), directory=tmp_path)


def test_rejects_unknown_best(fit, linear, tmp_path):
  with pytest.raises(ValueError, match="best is 'f1'; evaluate returns corner, seen"):
    fit(1, directory=tmp_path, evaluate=linear.corner, best='f1')


def test_rejects_a_longer_run_than_asked(fit, tmp_path):
  fit(2, directory=tmp_path)
  with pytest.raises(ValueError, match=r'steps is 1, but .* holds a run of 2 steps'):
    fit(1, directory=tmp_path)


def test_rejects_a_batch_that_cannot_be_split(fit, linear):
  with pytest.raises(ValueError, match='3 examples cannot be split evenly over 2 devices'):
    fit(1, batches=linear.Batches(size=3), make={'axis_name': 'devices', 'empty': False}, devices=2)


def test_rejects_a_step_that_forgets_the_other_devices(fit):
  with pytest.raises(ValueError, match="make the method with axis_name='devices'"):
    fit(2, make={'empty': False}, devices=2)
