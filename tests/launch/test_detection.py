"""A detector from training to drawn boxes, and a class that is added to it."""

import csv
import json
import pathlib

import numpy as np
import pytest
from absl import flags
from PIL import Image

from jaxdefect.data.sources import synthetic_boxes
from launch import adaptation, predict, reproduce, train
from launch.tasks import detection

pytest.importorskip('jaxdefect.methods.faster_rcnn')


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> pathlib.Path:
  config = reproduce.load_config('faster_rcnn_synthetic_boxes:smoke', {}, 0)
  config.split = {'kind': 'boxes_unseen', 'unseen': ('scratches',), 'shots': 2, 'max_test': 8}
  config.method.score_threshold = 0.0
  directory = tmp_path_factory.mktemp('run')
  train.train_seeds(config, directory / 'run', progress=False)
  return directory / 'run'


def flag_values(define, **values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def test_report_names_the_new_class_and_the_size_of_the_network(run):
  report = json.loads((run / 'report.json').read_text())
  assert report['classes'][-1] == 'scratches'
  assert report['parameters'] > 1000
  assert report['training_boxes']['over_cap'] == 0
  assert report['test_boxes']['kept'] == sum(report['support'].values())


def test_boxes_beyond_the_cap_are_said():
  over, none = {'over_cap': 3}, {'over_cap': 0}
  result = {'support': {}, 'notes': [], 'training_boxes': none, 'test_boxes': over}
  assert detection.warnings(result) == ['3 test boxes are beyond data.max_boxes and were left out.']


def test_report_draws_the_sampling_points(run):
  text = (run / 'report.html').read_text()
  assert 'layer2.1/conv2' in text  # the sampling points are drawn


def test_predict_writes_and_draws_boxes(run, tmp_path):
  (tmp_path / 'new').mkdir()
  source = synthetic_boxes.make(num_images=2, size=100)
  for i in range(2):
    Image.fromarray(source.read(i)[:, :80].squeeze()).save(tmp_path / 'new' / f'{i}.png')
  predict.main(
    flag_values(predict.define, workdir=run, images=tmp_path / 'new', out=tmp_path / 'out')
  )
  rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
  assert [row['image'] for row in rows] == ['0.png', '1.png']
  found = rows[0]['detections']
  assert found
  scores = [one['score'] for one in found]
  assert scores == sorted(scores, reverse=True)
  boxes = np.array([one['box'] for one in found])
  assert (boxes[:, 2] <= 80.01).all()  # in pixels of the file, not of the letterboxed canvas
  assert (boxes[:, 3] <= 100.01).all()
  with open(tmp_path / 'out' / 'predictions.csv') as file:
    assert len(list(csv.DictReader(file))) == sum(len(row['detections']) for row in rows)
  with Image.open(tmp_path / 'out' / 'overlays' / '0.png') as drawn:
    assert drawn.size == (384, 480)  # enlarged, in proportion


def test_a_held_back_class_is_added_from_boxes(run):
  result = adaptation.from_boxes(run, (1, 2), draws=2)
  assert result['draws'] == 2
  assert set(result['metrics']) == {
    *('old/before', 'old/1_boxes', 'old/2_boxes', 'new/1_boxes', 'new/2_boxes')
  }
  assert result['support']['scratches'] > 0
