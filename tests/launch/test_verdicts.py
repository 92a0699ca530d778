"""The hybrid from the command line: verdicts, the rules that produced them, and the page."""

import csv
import json
import pathlib

import numpy as np
import pytest
from absl import flags
from PIL import Image

from jaxdefect.contracts import VERDICTS
from launch import adapt, evaluate, predict, train

pytest.importorskip('jaxdefect.methods.classifier')
pytest.importorskip('jaxdefect.methods.patchcore')
hybrid_bc = pytest.importorskip('configs.hybrid_bc')


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> pathlib.Path:
  directory = tmp_path_factory.mktemp('hybrid') / 'run'
  train.train_seeds(hybrid_bc.get_config('smoke'), directory, progress=False)
  return directory


def flag_values(define, **values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def write_pictures(folder: pathlib.Path, *, num: int) -> None:
  folder.mkdir(parents=True)
  generator = np.random.default_rng(0)
  for i in range(num):
    pixels = generator.integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(folder / f'{i}.png')


def test_report(run):
  report = json.loads((run / 'report.json').read_text())
  metrics = report['metrics']
  assert metrics['rejected'] + metrics['asked'] + metrics['miss_rate'] == pytest.approx(1)
  assert metrics['rejected'] == metrics['false_reject_rate'] == 0  # 4 confirmed of 30
  assert report['confirmed'] == {'good': 9, 'defect': 4}
  assert any('Fewer than 30 confirmed samples of defect (4)' in w for w in report['warnings'])
  page = (run / 'report.html').read_text()
  assert 'A mode is rejected from 30 confirmed samples on.' in page
  assert 'Defective parts that pass' in page


def test_predict_says_which_rule(run, tmp_path):
  write_pictures(tmp_path / 'new', num=5)
  values = flag_values(predict.define, workdir=run, images=tmp_path / 'new', out=tmp_path / 'out')
  predict.main(values)
  with open(tmp_path / 'out' / 'predictions.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 5
  for row in rows:
    assert row['verdict'] in VERDICTS
    assert row['verdict'] != 'reject'
    flagged = float(row['score']) > float(row['threshold'])
    if row['class'] == 'good':
      assert (row['verdict'], row['rule']) == (
        ('review', 'anomaly') if flagged else ('ok', 'supervised')
      )
    else:
      assert (row['verdict'], row['rule']) == ('review', 'few samples')
  assert (tmp_path / 'out' / 'overlays' / '0.png').exists()


def test_more_samples_are_confirmed(run, tmp_path, capsys):
  write_pictures(tmp_path / 'more' / 'defect', num=26)
  adapt.main(
    flag_values(adapt.define, workdir=run, references=tmp_path / 'more', out=tmp_path / 'grown')
  )
  evaluate.main(flag_values(evaluate.define, workdir=tmp_path / 'grown', out=tmp_path / 'e.json'))
  report = json.loads((tmp_path / 'e.json').read_text())
  assert report['confirmed'] == {'good': 9, 'defect': 30}
  assert report['metrics']['asked'] == 0  # enough: the head decides
  capsys.readouterr()
