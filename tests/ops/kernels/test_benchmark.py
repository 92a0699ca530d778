"""The benchmark of the kernels, step by step and tiny, and what it does where a case fails."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import kernel_cases, kernels, timing


def _side(*results):
  results = [jnp.asarray(one) for one in results]
  means = [float(jnp.abs(one).mean()) for one in results]
  clock = {'wall': 1.0, 'cpu': 1.0}
  return {'call': lambda: clock, 'peak_bytes': 0, 'results': results, 'means': means}


def _fails():
  raise RuntimeError('out of memory')


def test_every_case_runs_and_agrees(monkeypatch, tmp_path):
  monkeypatch.setattr(timing, 'RESULTS', tmp_path)
  path = kernels.measure(
    torchvision_python=None,
    threads=1,
    rounds=1,
    repeats=1,
    sizes=kernels.TINY,
    interpret=True,
  )
  cases = json.loads(path.read_text())['cases']
  compared = [title for title, case in cases.items() if case.get('difference')]
  for name in ('deform_conv2d', 'nearest', 'tiles of the product', 'tiles of the gradients'):
    assert any(title.startswith(name) for title in compared), name
  assert not any('seconds' in case or case.get('errors') for case in cases.values())
  assert any(title.startswith('roi_align') for title in cases)


def test_a_case_that_fails_leaves_its_error_and_the_others(monkeypatch, tmp_path):
  cases, written = {}, []

  def write():
    written.append(sorted(cases))

  kernels.attempt(cases, 'bad', _fails, write)
  kernels.attempt(cases, 'good', lambda: {'seconds': 1}, write)
  assert cases['bad']['error'] == 'RuntimeError: out of memory'
  assert cases['good']['seconds'] == 1
  assert written == [['bad'], ['bad', 'good']]


def test_contenders_that_fail_or_differ_are_not_timed():
  makers = {
    'twin': lambda: _side([1.0, 2.0]),
    'equal': lambda: _side([1.0, 2.001]),
    'wrong': lambda: _side([1.0, 3.0]),
    'no number': lambda: _side([1.0, np.nan]),
    'short': lambda: _side(),
    'broken': _fails,
    'peer': lambda: {key: value for key, value in _side([2.0, 1.0]).items() if key != 'results'},
  }
  found = kernels.meet(makers, title='a case', rounds=2, tolerance=0.01)
  assert set(found['seconds']) == {'twin', 'equal', 'peer'}
  assert set(found['errors']) == {'wrong', 'no number', 'short', 'broken'}
  assert found['errors']['broken'] == 'RuntimeError: out of memory'


def test_with_interpret_a_difference_ends_the_program(monkeypatch, tmp_path):
  monkeypatch.setattr(timing, 'RESULTS', tmp_path)
  makers = {'twin': lambda: _side([1.0]), 'wrong': lambda: _side([2.0])}
  monkeypatch.setattr(kernels, 'tiles', lambda *_: iter([('a case', makers)]))
  with pytest.raises(SystemExit, match=r'a case: .*differ'):
    kernels.measure(
      torchvision_python=None,
      threads=1,
      rounds=1,
      repeats=1,
      sizes=kernels.TINY,
      groups=('tiles',),
      interpret=True,
    )


def test_samples_are_bilinear_and_inside():
  share, place = kernel_cases.samples((2, 5, 6, 16, 16))
  assert share.shape == place.shape == (60, 9, 1, 4)
  np.testing.assert_allclose(share.sum(-1), 1, rtol=1e-5)
  assert place.min() >= 0
  assert place[:30].max() < 30 <= place[30:].min()
  assert place.max() < 60
