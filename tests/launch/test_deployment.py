"""A run leaves JAX from the command line: converted, checked, predicted with, served and timed."""

import csv
import io
import json
import pathlib
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image
from starlette.testclient import TestClient

from jaxdefect import serve as serving
from jaxdefect import train as training
from jaxdefect.convert import exported
from launch import command, convert, exported_run, predict, serve, speed, train

classifier_synthetic = pytest.importorskip('configs.classifier_synthetic')
patchcore_bc = pytest.importorskip('configs.patchcore_bc')

SIZE = (50, 70)


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> pathlib.Path:
  directory = tmp_path_factory.mktemp('deployment') / 'run'
  train.train_seeds(patchcore_bc.get_config('smoke'), directory, progress=False)
  return directory


@pytest.fixture(scope='module')
def folder(run) -> pathlib.Path:
  out = run.parent / 'exported'
  convert.convert(run, out)
  return out


@pytest.fixture(scope='module')
def pictures(tmp_path_factory) -> pathlib.Path:
  """Three gray pictures and one in colour, of two sizes."""
  folder = tmp_path_factory.mktemp('pictures')
  generator = np.random.default_rng(0)
  for i in range(3):
    Image.fromarray(generator.integers(0, 256, SIZE, np.uint8)).save(folder / f'{i}.png')
  Image.fromarray(generator.integers(0, 256, (90, 40, 3), np.uint8)).save(folder / '3.png')
  return folder


def flag_values(define, **values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def said(launcher, *arguments, monkeypatch, capsys) -> str:
  """What a launcher complains about."""
  monkeypatch.setattr(sys, 'argv', ['program', *arguments])
  with pytest.raises(SystemExit) as error:
    command.run(launcher.define, launcher.main)
  assert error.value.code == 2
  printed = capsys.readouterr().err
  assert printed.startswith('error: ')
  assert len(printed.splitlines()) == 1
  return printed


def test_the_folder_is_whole(folder):
  names = {path.name for path in folder.iterdir()}
  assert names == {
    *('model.py', 'model.safetensors', 'model.json', 'model.onnx', 'parity.json'),
    *('example.py', 'example_onnx.py'),
  }
  told = json.loads((folder / 'model.json').read_text())
  assert told['method'] == 'patchcore'
  assert told['data']['image_size'] == told['arguments']['image_size']
  assert told['calibration']['threshold'] == pytest.approx(told['arguments']['threshold'])
  assert told['versions']['jaxdefect']
  assert str(folder.parent) not in json.dumps(told)  # no path of this machine


def test_parity_is_written_down_and_printed(run, tmp_path, capsys):
  out = tmp_path / 'exported'
  convert.main(flag_values(convert.define, workdir=run, out=out, to='torch', images=5))
  found = json.loads((out / 'parity.json').read_text())
  assert found['pixels'] == 0
  assert found['torch']['n'] == 5
  assert found['torch']['metrics'] == found['torch']['metrics_in_jax']
  assert 'onnx' not in found
  assert not (out / 'model.onnx').exists()
  printed = capsys.readouterr().out
  assert 'torch: 5 of 5 pictures decided the same; largest differences: scores ' in printed
  assert f'  {", ".join(found["torch"]["metrics"])}: as in JAX\n' in printed


def test_a_figure_that_differs_is_printed_beside_ours(capsys):
  metrics, in_jax = {'f1': 0.75, 'auroc': 1.0}, {'f1': 0.5, 'auroc': 1.0}
  found = {'differences': {}, 'decided_the_same': 3, 'n': 4}
  convert._tell('onnx', {**found, 'metrics': metrics, 'metrics_in_jax': in_jax})
  assert capsys.readouterr().out.splitlines()[1:] == [
    *('  f1: 0.75 (0.5 in JAX)', '  auroc: as in JAX')
  ]


def test_what_differs_is_not_left_behind(run, tmp_path, monkeypatch):
  class Wrong(exported.TorchModel):
    def __call__(self, images):
      scores, *rest = super().__call__(images)
      return scores * 1.001, *rest

  monkeypatch.setattr(exported, 'TorchModel', Wrong)
  with pytest.raises(
    ValueError, match=r'the scores of the exported model differ .* nothing was wri'
  ):
    convert.convert(run, tmp_path / 'exported', targets=('torch',))
  assert list(tmp_path.iterdir()) == []


def test_predictions_of_all_three_are_the_same(run, folder, pictures, tmp_path):
  tables = []
  for i, source in enumerate(
    ({'workdir': run}, {'model': folder}, {'model': folder / 'model.onnx'})
  ):
    out = tmp_path / str(i)
    predict.main(flag_values(predict.define, images=pictures, out=out, **source))
    with open(out / 'predictions.csv') as file:
      tables.append(list(csv.DictReader(file)))
    assert len(list((out / 'overlays').iterdir())) == len(list((out / 'maps').iterdir())) == 4
  for rows in tables[1:]:
    for ours, theirs in zip(tables[0], rows, strict=True):
      assert ours['image'] == theirs['image']
      assert ours['verdict'] == theirs['verdict']
      assert float(ours['score']) == pytest.approx(float(theirs['score']), rel=1e-4)


def test_another_false_alarm_rate_of_an_exported_model(folder, pictures, tmp_path):
  strict = exported_run.open_run(folder, false_alarm_rate=0.9)
  usual = exported_run.open_run(folder)
  assert strict.fitted.calibration['threshold'] < usual.fitted.calibration['threshold']
  out = tmp_path / 'out'
  flagged = {'images': pictures, 'out': out, 'model': folder, 'false_alarm_rate': 0.9}
  predict.main(flag_values(predict.define, **flagged))
  row = json.loads((out / 'predictions.json').read_text())[0]
  assert row['threshold'] == pytest.approx(float(strict.fitted.calibration['threshold']), rel=1e-5)


def test_served_verdicts_are_those_of_predict(folder, pictures, tmp_path):
  predict.main(flag_values(predict.define, images=pictures, out=tmp_path / 'out', model=folder))
  rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
  run = exported_run.open_run(folder / 'model.onnx')
  with TestClient(serving.make_app(serve.inspector(run), {})) as client:
    for row in rows:
      body = (pictures / row['image']).read_bytes()
      answer = client.post('/inspect', content=body).json()
      assert answer['verdict'] == row['verdict']
      assert answer['score'] == pytest.approx(row['score'], rel=1e-4)
      drawn = client.post('/overlay', content=body)
      assert json.loads(drawn.headers['x-verdict']) == answer
      with (
        Image.open(io.BytesIO(drawn.content)) as picture,
        Image.open(pictures / row['image']) as original,
      ):
        assert picture.size == original.size


def test_speed_of_every_stage(folder, pictures, tmp_path, capsys):
  out = tmp_path / 'speed.json'
  settings = {'model': folder / 'model.onnx', 'images': pictures, 'out': out, 'batch': 2}
  speed.main(flag_values(speed.define, seconds=0.2, **settings))
  told = json.loads(out.read_text())
  assert list(told['ms']) == ['decode', 'resize', 'infer', 'verdict', 'in all']
  assert all(row['p50'] <= row['p95'] <= row['p99'] for row in told['ms'].values())
  assert told['ms']['in all']['mean'] >= told['ms']['decode']['mean']
  assert told['images_per_second_decoded'] >= told['images_per_second'] > 0
  assert 'pictures/s with decoding' in capsys.readouterr().out


def test_a_camera_that_is_too_fast_loses_pictures(folder, pictures, monkeypatch):
  run = exported_run.open_run(folder)
  source = predict.data.unlabelled(dir=pictures)

  class Clock:
    """Time passes where somebody sleeps or inspects."""

    now = 0.0

    def perf_counter(self):
      return self.now

    def sleep(self, seconds):
      self.now += seconds

  def inspected(self, picture):
    clock.now += 0.25

  clock = Clock()
  monkeypatch.setattr(speed, 'time', clock)
  monkeypatch.setattr(exported_run.ExportedRun, 'inspect', inspected)
  slow = speed.camera(run, source, fps=2, queue=0, seconds=10)
  assert (slow['arrived'], slow['inspected'], slow['dropped']) == (20, 20, 0)
  assert slow['latency_ms']['p99'] == pytest.approx(250)
  fast = speed.camera(run, source, fps=8, queue=1, seconds=10)
  assert fast['arrived'] == 80 == fast['inspected'] + fast['dropped']
  assert fast['inspected'] in (40, 41, 42)
  assert 250 < fast['latency_ms']['p50'] <= 500


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (['--to=caffe'], "--to holds 'caffe'; it can hold torch, onnx"),
    (['--static=1,2'], '--static is 1,2; it must be N,HEIGHT,WIDTH'),
    (['--static=1,0,5'], 'it must be N,HEIGHT,WIDTH'),
    (['--precision=int4'], "--precision is 'int4'; it can be float32, float16, int8"),
  ],
)
def test_bad_input_of_convert(run, tmp_path, monkeypatch, capsys, arguments, sentence):
  place = [f'--workdir={run}', f'--out={tmp_path / "out"}']
  assert sentence in said(convert, *place, *arguments, monkeypatch=monkeypatch, capsys=capsys)
  assert list(tmp_path.iterdir()) == []


def test_bad_input_of_what_takes_an_exported_model(
  folder, run, pictures, tmp_path, monkeypatch, capsys
):
  tools = {'monkeypatch': monkeypatch, 'capsys': capsys}
  place = [f'--images={pictures}', f'--out={tmp_path / "out"}']
  assert 'either --workdir' in said(predict, *place, **tools)
  both = [f'--workdir={run}', f'--model={folder}']
  assert 'either --workdir' in said(predict, *place, *both, **tools)
  assert 'there is no model.json' in said(predict, *place, f'--model={run}', **tools)
  damaged = tmp_path / 'model.onnx'
  damaged.write_bytes((folder / 'model.onnx').read_bytes()[:-500])
  for launcher, more in ((predict, place), (serve, []), (speed, place[:1])):
    assert 'is damaged' in said(launcher, *more, f'--model={damaged}', **tools)
  assert not (tmp_path / 'out').exists()
  assert '--seconds and --batch' in said(
    speed, place[0], f'--model={folder}', '--seconds=0', **tools
  )


def test_a_run_without_a_threshold_says_so(run, pictures, tmp_path):
  import dataclasses
  import shutil

  other = tmp_path / 'run'
  shutil.copytree(run, other)
  fitted = training.load_fitted(other / 'fitted.safetensors')
  training.save_fitted(other / 'fitted.safetensors', dataclasses.replace(fitted, calibration=None))
  convert.convert(other, tmp_path / 'exported', targets=('torch',))
  values = {'images': pictures, 'out': tmp_path / 'out', 'model': tmp_path / 'exported'}
  with pytest.raises(ValueError, match='has no threshold; train it with a config that has calib'):
    predict.main(flag_values(predict.define, **values))


def test_evidence_of_an_exported_recogniser_is_that_of_the_run(pictures, tmp_path):
  directory, out = tmp_path / 'run', tmp_path / 'exported'
  train.train_seeds(classifier_synthetic.get_config('smoke'), directory, progress=False)
  convert.convert(directory, out, targets=('torch',), limit=4)
  drawn = []
  for name, source in (('ours', {'workdir': directory}), ('theirs', {'model': out})):
    values = {'images': pictures, 'out': tmp_path / name, **source}
    predict.main(flag_values(predict.define, **values))
    paths = sorted((tmp_path / name / 'overlays').iterdir())
    drawn.append([np.asarray(Image.open(path)).astype(int) for path in paths])
  assert len(drawn[0]) == 4
  for ours, theirs in zip(*drawn, strict=True):
    assert np.abs(ours - theirs).max() <= 2
  # And over HTTP, from the file alone.
  with TestClient(serving.make_app(serve.inspector(exported_run.open_run(out)), {})) as client:
    answer = client.post('/overlay', content=(pictures / '3.png').read_bytes())
    with Image.open(io.BytesIO(answer.content)) as picture:
      assert np.abs(np.asarray(picture).astype(int) - drawn[1][3]).max() <= 2
