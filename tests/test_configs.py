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
from jaxdefect.data import sources, splits
from launch import train

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
  split = inspect.signature(getattr(splits, config.split.kind)).parameters
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
  module = load('classifier_neu')
  config = module.get_config()
  config.method.unlock()
  config.method.learning_rat = 1.0
  config.data.name = 'nowhere'
  assert len(problems('neu', config, 'no command')) == 4


def make_pictures(folder: pathlib.Path, kind: str, per_class: int = 8) -> None:
  """A tiny data set in the official layout: textures that differ from class to class."""
  generator = np.random.default_rng(0)

  def picture(label: int, size: int = 40) -> np.ndarray:
    x = np.arange(size)
    wave = 60 * np.sin(x[None, :] * (0.3 + 0.25 * label) + generator.uniform(0, 6))
    return np.clip(128 + wave + generator.normal(0, 12, (size, size)), 0, 255).astype(np.uint8)

  if kind == 'mixedwm38':
    from jaxdefect.data.sources import mixedwm38

    patterns = [c.split('+') for c in mixedwm38.CLASSES for _ in range(4)]
    codes = np.array([[int(b in p) for b in mixedwm38.BASIC] for p in patterns], np.uint8)
    folder.mkdir(parents=True)
    maps = generator.integers(0, 3, (len(codes), 52, 52), np.uint8)
    np.savez(folder / 'Wafer_Map_Datasets.npz', arr_0=maps, arr_1=codes)
    return
  if kind == 'neu':
    classes = ('crazing', 'inclusion', 'patches', 'pitted_surface', 'rolled-in_scale', 'scratches')
    (folder / 'IMAGES').mkdir(parents=True)
    (folder / 'ANNOTATIONS').mkdir()
    for label, name in enumerate(classes):
      for i in range(1, per_class + 1):
        Image.fromarray(picture(label)).save(folder / 'IMAGES' / f'{name}_{i}.jpg', quality=95)
        (folder / 'ANNOTATIONS' / f'{name}_{i}.xml').write_text(
          f'<annotation><filename>{name}_{i}.jpg</filename>'
          '<size><width>40</width><height>40</height><depth>1</depth></size>'
          f'<object><name>{name}</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax>'
          '<ymax>30</ymax></bndbox></object></annotation>'
        )
    return
  classes = ('bent', 'dirty', 'good')
  if kind == 'xsdd':
    from jaxdefect.data.sources import xsdd

    classes = xsdd.CLASSES
  for label, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    for i in range(per_class):
      Image.fromarray(picture(label)).save(folder / name / f'{i}.png')


@pytest.mark.parametrize('name', NAMES)
def test_smoke_run(name, tmp_path):
  config = load(name).get_config('smoke')
  if 'dir' in config.data:
    make_pictures(tmp_path / 'data', config.data.name)
    config.data.dir = str(tmp_path / 'data')
  directory = tmp_path / 'run'
  report = train.train_seeds(config, directory, progress=False)
  assert 0 <= report['metrics']['accuracy'] <= 1
  written = json.loads((directory / 'report.json').read_text())
  assert written['metrics'] == report['metrics']
  for file in ('config.json', 'split.json', 'metrics.jsonl', 'report.html', 'fitted.safetensors'):
    assert (directory / file).stat().st_size > 0, file
  # A finished run is not trained again.
  assert train.train_seeds(config, directory, progress=False) == written
