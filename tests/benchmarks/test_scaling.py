"""The scaling benchmark measures what it says, and keeps the axes that it is not asked for."""

import json

import pytest

from benchmarks import scaling, timing

FIXED = {
  'recogniser': {'backbone': 'resnet10', 'batch': 2, 'side': 32, 'classes': 5},
  'detector': {'backbone': 'resnet10', 'stages': 1, 'batch': 1, 'side': 32, 'classes': 2},
}


def test_every_kind_of_device_has_every_axis():
  assert {*scaling.AXES['cpu']} == {*scaling.AXES['gpu']}
  assert scaling.FIXED['cpu'].keys() == scaling.FIXED['gpu'].keys()
  assert all(len(values) > 2 for axes in scaling.AXES.values() for values in axes.values())


def test_measures_and_keeps_the_other_axes(tmp_path, monkeypatch):
  monkeypatch.setattr(timing, 'RESULTS', tmp_path)
  settings = {'threads': 1, 'rounds': 1, 'fixed': FIXED}
  scaling.measure(axes={'bank': (64,)}, **settings)
  path = scaling.measure(axes={'batch': (3,)}, **settings)
  report = json.loads(path.read_text())
  assert {*report['cases']} == {'bank 64', 'batch 3'}
  assert report['threads'] == 1
  batch = report['cases']['batch 3']
  assert {*batch['seconds']} == {'jaxdefect', 'PyTorch', 'PyTorch channels_last'}
  ratio = batch['seconds']['jaxdefect']['median'] / batch['seconds']['PyTorch']['median']
  assert batch['ours_over']['PyTorch']['median'] == pytest.approx(ratio)
  # Parameters are donated, so what is set aside is for activations and gradients.
  assert batch['peak_bytes']['jaxdefect'] > 4 * 3 * 32**2
  scaling.measure(axes={'bank': (80,)}, **settings)
  assert {*json.loads(path.read_text())['cases']} == {'bank 80', 'batch 3'}


def test_detector_takes_its_boxes_and_proposals():
  side, peers = scaling.contenders('boxes', 5, FIXED, 'cpu')
  assert peers == {}
  scalars = side['call']()
  loss, weight = scalars['loss']
  assert 0 < float(loss / weight) < 1e6
  assert side['peak_bytes'] > 0
