"""A run without a network, for tests of what launchers do around one."""

import json
import pathlib
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxdefect.data import hold_out, sources, splits
from jaxdefect.review import Prediction
from launch import experiment, finished_run

classifier_folder = pytest.importorskip('configs.classifier_folder')

CLASSES = ('defect', 'good')


def write_picture(path: pathlib.Path, seed: int) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


def make(directory: pathlib.Path, pictures: pathlib.Path) -> pathlib.Path:
  """What ``launch.train`` writes first, of a run on eight pictures of each kind."""
  for seed in range(16):
    write_picture(pictures / CLASSES[seed % 2] / f'{seed:02}.png', seed)
  config = classifier_folder.get_config('smoke')
  config.data.dir = str(pictures)
  config.split = ConfigDict({'kind': 'few_shot', 'per_class': 3, 'validation_per_class': 1})
  source = experiment.load_source(config.data)
  split = experiment.make_split(config.split, source, 0)
  experiment.write_config(config, directory)
  splits.write(directory / 'split.json', source, split)
  return directory


def names(directory: pathlib.Path, part: str) -> list[str]:
  return sorted(json.loads((directory / 'split.json').read_text())[part])


def set_aside(pictures: pathlib.Path, held: list[str]) -> None:
  """What ``launch.cross_validate`` writes."""
  source = sources.load('folder', dir=pictures)
  places = [source.names.index(name) for name in held]
  hold_out.write(pictures / hold_out.FILE, hold_out.make(source, places, seed=0))


def read_run(directory: pathlib.Path, **_) -> finished_run.Finished:
  """In the place of ``finished_run.read_run``."""
  fitted = types.SimpleNamespace(classes=CLASSES, calibration=None)
  return finished_run.Finished(experiment.read_config(directory), None, fitted, directory)


def train_seed(config, seed: int, directory: pathlib.Path, *, progress: bool = True) -> None:
  """In the place of ``train.train_seed``, which refuses the run of another config, too."""
  assert seed == 0
  assert not progress
  experiment.write_config(config, directory)
  experiment.read_split(directory, config)


def prediction(image: str, path: pathlib.Path) -> Prediction:
  return Prediction(image, str(path.resolve()), 'ok', '', 'good', 0.1, None, 0.5, 0.5)
