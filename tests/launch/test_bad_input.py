"""Bad input ends in one plain sentence, exit code 2, and nothing half-written."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from launch import command, convert, evaluate, predict, train

pytest.importorskip('jaxdefect.methods.contrastive_margin')
pytest.importorskip('jaxdefect.methods.faster_rcnn')

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = f'{ROOT}/configs/contrastive_margin_folder.py:smoke'


@pytest.fixture
def pictures(tmp_path):
  generator = np.random.default_rng(0)
  for name in ('bent', 'good'):
    (tmp_path / 'pictures' / name).mkdir(parents=True)
    for i in range(5):
      pixels = generator.integers(0, 256, (40, 40), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'pictures' / name / f'{i}.png')
  return tmp_path / 'pictures'


def sentence(launcher, arguments, monkeypatch, capsys) -> str:
  """Runs a launcher as the command line would and returns what it says on stderr."""
  monkeypatch.setattr(sys, 'argv', ['launch', *arguments])
  monkeypatch.delenv('JAXDEFECT_DEBUG', raising=False)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'unused')
  capsys.readouterr()
  with pytest.raises(SystemExit) as exit_:
    command.run(launcher.define, launcher.main)
  assert exit_.value.code == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ')
  assert said.count('\n') == 1
  assert 'Traceback' not in said
  return said


def test_training_input(pictures, tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'run'

  def said(*arguments, config=CONFIG, data=pictures):
    flags = [f'--config={config}', f'--config.data.dir={data}', f'--workdir={workdir}', *arguments]
    text = sentence(train, flags, monkeypatch, capsys)
    assert not workdir.exists(), 'nothing may be written'
    return text

  assert 'does not exist' in said(data=tmp_path / 'nowhere')
  (tmp_path / 'empty').mkdir()
  assert str(tmp_path / 'empty') in said(data=tmp_path / 'empty')
  assert 'data.dir is not set' in said(data='')
  few = said('--config.split.train=0.99')
  assert "'bent'" in few
  assert '--config.split.train=0.99' in few
  damaged = shutil.copytree(pictures, tmp_path / 'damaged')
  broken = sorted((damaged / 'bent').iterdir())[0]
  broken.write_bytes(broken.read_bytes()[:100])
  text = said(data=damaged)
  assert f'The image {broken} cannot be read' in text
  assert 'split' not in text
  shutil.copytree(pictures / 'good', tmp_path / 'one' / 'good')
  assert "one alone, 'good'; put the pictures of each class" in said(data=tmp_path / 'one')
  assert "did you mean 'steps'" in said('--config.step=3')
  assert "did you mean 'method.backbone'" in said('--config.method.backbon=resnet18')
  assert 'nowhere.py' in said(config='nowhere.py')
  assert 'no variant' in said(config=CONFIG.replace('smoke', 'smok'))
  assert 'resnet19' in said('--config.method.backbone=resnet19')
  assert 'invalid literal' in said('--config.steps=many')
  # By its path: a name would be looked up in a folder that only some machines have.
  weights = tmp_path / 'tiny.pth'
  assert 'tiny.pth' in said(f'--config.pretrained.weights={weights}')
  # What the loop refuses is said before the folder would refuse the corrected command.
  assert 'no evaluate that could return it' in said('--config.best=accuracy')
  assert 'log_every is 0' in said('--config.log_every=0')
  monkeypatch.setitem(sys.modules, 'tensorboard', None)
  monkeypatch.setitem(sys.modules, 'tensorboard.summary', None)
  assert 'pip install tensorboard' in said('--config.tensorboard=True')
  assert 'unknown flag' in said('--wrkdir=x')
  assert 'unexpected argument' in said('stray')


def test_damaged_pictures(pictures, tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'run'
  flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={workdir}']
  damaged = pictures / 'bent' / '3.png'
  for content in (b'', damaged.read_bytes()[:60], b'this is no picture'):
    damaged.write_bytes(content)
    text = sentence(train, flags, monkeypatch, capsys)
    assert '3.png' in text
    assert not workdir.exists()


def test_weights_of_another_network(pictures, tmp_path, monkeypatch, capsys):
  import safetensors.numpy

  path = tmp_path / 'other.safetensors'
  safetensors.numpy.save_file({'conv1.weight': np.zeros((64, 3, 7, 7), np.float32)}, path)
  flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={tmp_path / "run"}']
  flags.append(f'--config.pretrained.weights={path}')
  assert 'other.safetensors' in sentence(train, flags, monkeypatch, capsys)


def test_folder_of_another_run(pictures, tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'run'
  flags = [f'--config={CONFIG}', f'--config.data.dir={pictures}', f'--workdir={workdir}']
  monkeypatch.setattr(sys, 'argv', ['launch', *flags])
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'unused')
  command.run(train.define, train.main)
  before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  text = sentence(train, [*flags, '--config.steps=3'], monkeypatch, capsys)
  assert 'another config (steps is 2 there and 3 here); choose another --workdir' in text

  # A checkpoint of another architecture: the config was edited by hand to match.
  settings = (workdir / 'config.json').read_text()
  (workdir / 'config.json').write_text(settings.replace('"stages": 2', '"stages": 1'))
  (workdir / 'report.json').unlink()
  text = sentence(train, [*flags, '--config.method.stages=1'], monkeypatch, capsys)
  assert 'another architecture' in text
  assert 'there and' in text
  for file, content in before.items():
    if file.name not in ('config.json', 'report.json'):
      assert file.read_bytes() == content, file


def test_predict_and_convert(pictures, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'out'

  def said(launcher, *arguments):
    text = sentence(launcher, arguments, monkeypatch, capsys)
    assert not out.exists()
    return text

  assert 'say either --workdir' in said(predict)
  nowhere = f'--workdir={tmp_path / "nowhere"}'
  assert 'holds no run' in said(predict, nowhere, f'--images={pictures}', f'--out={out}')
  assert 'holds no run' in said(convert, nowhere, '--to=torch', f'--out={out}')
  assert 'it can hold torch' in said(convert, nowhere, '--to=caffe', f'--out={out}')


def test_annotations_of_a_detector(tmp_path, monkeypatch, capsys):
  folder, file = tmp_path / 'images', tmp_path / 'instances.json'
  folder.mkdir()
  pixels = np.zeros((40, 40), np.uint8)
  Image.fromarray(pixels).save(folder / 'a.png')
  content = {
    'images': [{'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 40}],
    'annotations': [{'id': 7, 'image_id': 1, 'category_id': 3, 'bbox': [2, 3, 10, 10]}],
    'categories': [{'id': 3, 'name': 'dent'}],
  }

  def said(path=file, **changes):
    boxes = [{**content['annotations'][0], **changes}]
    file.write_text(json.dumps({**content, 'annotations': boxes}))
    flags = [f'--config={ROOT}/configs/faster_rcnn_coco.py:smoke', f'--config.data.dir={folder}']
    flags += [f'--config.data.annotations={path}', f'--workdir={tmp_path / "run"}']
    text = sentence(train, flags, monkeypatch, capsys)
    assert not (tmp_path / 'run').exists(), 'nothing may be written'
    return text

  assert 'data.annotations is not set' in said(path='')
  assert 'do not exist' in said(path=tmp_path / 'none.json')
  assert 'annotation 7 of image_id 2' in said(image_id=2)
  assert 'annotation 7' in said(category_id=9)
  assert 'annotation 7' in said(bbox=[30, 3, 20, 10])
  (folder / 'a.png').write_bytes(b'noise')
  assert 'a.png' in said()


def test_few_references_need_a_method_that_compares(pictures, tmp_path, monkeypatch, capsys):
  pytest.importorskip('jaxdefect.methods.classifier')
  config = command.load_config(f'{ROOT}/configs/classifier_folder.py:smoke')
  config.data.dir = str(pictures)
  train.train_seeds(config, tmp_path / 'run', progress=False)
  flags = [f'--workdir={tmp_path / "run"}', f'--data=folder:{pictures}', '--shots=1']
  said = sentence(evaluate, flags, monkeypatch, capsys)
  assert 'classifier does not tell classes apart by references alone' in said
