"""Every config says what it is, names real things, and its smoke variant runs from end to end."""

import importlib.util
import inspect
import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxdefect import methods, optim
from jaxdefect.data import sources
from jaxdefect.data.sources import mixedwm38, neu, xsdd
from launch import convert, experiment, train
from tests.method_batches import NAMES as MADE

ROOT = pathlib.Path(__file__).parent.parent
NAMES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != '__init__')


def load(name: str):
  spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def problems(name: str, config: ConfigDict, doc: str) -> list[str]:
  """What is wrong with a config, as sentences."""
  found = []
  if not name.startswith(f'{config.method.name}_'):
    found.append(f'{name}: the file is named <method>_<data set>')
  if f'configs/{name}.py' not in doc:
    found.append(f'{name}: the docstring shows no command')
  if config.method.name not in methods.names():
    found.append(f'{name}: no method {config.method.name}')
    return found
  settings = inspect.signature(methods.load(config.method.name)).parameters
  found += [f'{name}: method has no {k}' for k in config.method if k not in {*settings, 'name'}]
  rule = inspect.signature(getattr(optim, config.optimizer.name)).parameters
  found += [f'{name}: optimizer has no {k}' for k in config.optimizer if k not in {*rule, 'name'}]
  split = inspect.signature(experiment.SPLITS[config.split.kind]).parameters
  found += [f'{name}: split has no {k}' for k in config.split if k not in {*split, 'kind'}]
  if config.data.name not in sources.names():
    found.append(f'{name}: no data set {config.data.name}')
  json.loads(config.to_json())
  return found


@pytest.mark.parametrize('name', NAMES)
def test_config_names_real_things(name):
  module = load(name)
  assert problems(name, module.get_config(), module.__doc__) == []
  smoke = module.get_config('smoke')
  assert smoke.steps <= 3
  with pytest.raises(ValueError, match='no variant'):
    module.get_config('nonsense')


def test_a_deliberate_break_is_found():
  module = load(NAMES[0])
  config = module.get_config()
  config.method.unlock()
  config.method.learning_rat = 1.0
  config.data.name = 'nowhere'
  assert len(problems('neu', config, 'no command')) == 4


BOX = (2, 3, 20, 30)
# The same number of classes and pictures in COCO and VOC: one program serves both.
TWO = ('dent', 'scratch')


def picture(label: int, number: int, size: int = 40) -> Image.Image:
  """A texture that differs from class to class, with a spot that differs from number to number."""
  generator = np.random.default_rng([label, number])
  x = np.arange(size)
  wave = 60 * np.sin(x[None, :] * (0.3 + 0.25 * label) + generator.uniform(0, 6))
  values = 128 + wave + generator.normal(0, 12, (size, size))
  y0, x0 = generator.integers(0, size // 2, 2)
  values[y0 : y0 + size // 3, x0 : x0 + size // 3] += 90 * (-1) ** number
  return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def make_class_folders(folder: pathlib.Path, classes=('bent', 'dirty', 'good')) -> None:
  for label, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    for i in range(8):
      picture(label, i).save(folder / name / f'{i}.png')


def make_mixedwm38(folder: pathlib.Path) -> None:
  patterns = [c.split('+') for c in mixedwm38.CLASSES for _ in range(4)]
  codes = np.array([[int(b in p) for b in mixedwm38.BASIC] for p in patterns], np.uint8)
  folder.mkdir(parents=True)
  maps = np.random.default_rng(0).integers(0, 3, (len(codes), 52, 52), np.uint8)
  np.savez(folder / 'Wafer_Map_Datasets.npz', arr_0=maps, arr_1=codes)


def make_voc(folder: pathlib.Path, classes=neu.CLASSES) -> None:
  images, xml = folder / 'IMAGES', folder / 'ANNOTATIONS'
  images.mkdir(parents=True)
  xml.mkdir()
  box = '<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>'.format(*BOX)
  for label, name in enumerate(classes):
    for i in range(1, 9):
      picture(label, i).save(images / f'{name}_{i}.jpg', quality=95)
      (xml / f'{name}_{i}.xml').write_text(
        f'<annotation><filename>{name}_{i}.jpg</filename>'
        '<size><width>40</width><height>40</height><depth>1</depth></size>'
        f'<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>'
      )


def make_coco(folder: pathlib.Path) -> None:
  folder.mkdir(parents=True)
  x0, y0, x1, y1 = BOX
  content = {'images': [], 'annotations': [], 'categories': []}
  for label, name in enumerate(TWO):
    content['categories'].append({'id': label + 1, 'name': name})
    for i in range(8):
      number = 8 * label + i
      picture(label, i).save(folder / f'{number}.png')
      image = {'id': number, 'file_name': f'{number}.png', 'width': 40, 'height': 40}
      box = {'id': number, 'image_id': number, 'category_id': label + 1}
      content['images'].append(image)
      content['annotations'].append({**box, 'bbox': [x0, y0, x1 - x0, y1 - y0]})
  (folder / 'instances.json').write_text(json.dumps(content))


def make_deep_pcb(folder: pathlib.Path) -> None:
  group = folder / 'PCBData' / 'group0'
  (group / '0').mkdir(parents=True)
  (group / '0_not').mkdir()
  lines = []
  for i in range(24):
    for kind in ('test', 'temp'):
      picture(i % 6, i, 640).save(group / '0' / f'{i}_{kind}.jpg')
    (group / '0_not' / f'{i}.txt').write_text(f'200 300 260 350 {i % 6 + 1}\n')
    lines.append(f'group0/0/{i}.jpg group0/0_not/{i}.txt')
  (folder / 'PCBData' / 'trainval.txt').write_text('\n'.join(lines[:18]) + '\n')
  (folder / 'PCBData' / 'test.txt').write_text('\n'.join(lines[18:]) + '\n')


def make_products(folder: pathlib.Path) -> None:
  """Three products beside each other; the first is the target."""
  for product in (folder, folder.parent / 'lid', folder.parent / 'ring'):
    make_class_folders(product, ('chipped', 'good'))


# How to make each data set, tiny and in its official layout.
MAKERS = {
  'coco': make_coco,
  'deep_pcb': make_deep_pcb,
  'folder': make_class_folders,
  'mixedwm38': make_mixedwm38,
  'neu': make_voc,
  'neu_det': make_voc,
  'product': make_products,
  'voc': lambda folder: make_voc(folder, TWO),
  'xsdd': lambda folder: make_class_folders(folder, xsdd.CLASSES),
}


# Method -> the config whose smoke run is converted: the first that has it.
CONVERTED = {load(name).get_config().method.name: name for name in reversed(NAMES)}
CONVERTED = {n: c for n, c in CONVERTED.items() if n in MADE and methods.load(n)().deploy}


@pytest.mark.parametrize('name', [n for n in NAMES if load(n).get_config().method.name in MADE])
def test_smoke_run(name, tmp_path):
  config = load(name).get_config('smoke')
  if 'dir' in config.data:
    MAKERS[config.data.name](tmp_path / 'given' / 'data')
    config.data.dir = str(tmp_path / 'given' / 'data')
  if 'annotations' in config.data:
    config.data.annotations = str(tmp_path / 'given' / 'data' / 'instances.json')
  if 'tasks' in config and 'products' in config.tasks:
    config.tasks.products.dir = str(tmp_path / 'given')
  directory = tmp_path / 'run'
  report = train.train_seeds(config, directory, progress=False)
  headline = 'map50' if 'max_boxes' in config.data else 'accuracy'
  headline = 'auroc' if 'calibration' in config else headline
  headline = 'miss_rate' if 'anomaly' in config.method else headline
  assert 0 <= report['metrics'][headline] <= 1
  written = json.loads((directory / 'report.json').read_text())
  assert written['metrics'] == report['metrics']
  files = ['config.json', 'split.json', 'report.html', 'fitted.safetensors']
  for file in files + ['metrics.jsonl'] * bool(config.steps):
    assert (directory / file).stat().st_size > 0, file
  # A finished run is not trained again.
  assert train.train_seeds(config, directory, progress=False) == written
  if CONVERTED.get(config.method.name) == name:
    _converts(directory, tmp_path / 'exported')


def _converts(directory: pathlib.Path, out: pathlib.Path) -> None:
  """The run says the same in PyTorch and ONNX, from the files of its own pictures."""
  found = convert.convert(directory, out)
  assert found == json.loads((out / 'parity.json').read_text())
  assert found['pixels'] == 0
  for target in ('torch', 'onnx'):
    side = found[target]
    assert side['n'] > 0
    assert side['metrics'] == pytest.approx(side['metrics_in_jax'], abs=1e-3)
    assert {name: v for name, v in side['differences'].items() if v > 1e-4} in ({}, {'boxes'})
    assert side['differences'].get('boxes', 0) < 0.05
