"""Training shows what its random views look like, and refuses what they cannot be."""

import base64
import re

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from launch import augmentation, experiment, train

classifier_folder = pytest.importorskip('configs.classifier_folder')
nearest_neighbor_bc = pytest.importorskip('configs.nearest_neighbor_bc')

CLASSES = ('pit', 'scratch')


@pytest.fixture
def pictures(tmp_path):
  generator = np.random.default_rng(0)
  for name in CLASSES:
    (tmp_path / 'pictures' / name).mkdir(parents=True)
    for i in range(5):
      pixels = generator.integers(0, 256, (40, 40), np.uint8)
      Image.fromarray(pixels).save(tmp_path / 'pictures' / name / f'{i}.png')
  return tmp_path / 'pictures'


def settings(pictures, views) -> ConfigDict:
  config = classifier_folder.get_config('smoke')
  config.data.dir = str(pictures)
  config.method.augmentation = None if views is None else ConfigDict(views)
  return config


def texts(figure) -> list[str]:
  return [text.get_text() for text in figure.axes[0].texts]


def test_run_writes_the_sheet_and_shows_it(pictures, tmp_path):
  views = {'angle': 180.0, 'angle_limits': {'scratch': 10}, 'elastic': 0.02, 'brightness': 0.1}
  directory = tmp_path / 'run'
  train.train_seeds(settings(pictures, views), directory, progress=False)
  written = (directory / 'augmentation.png').read_bytes()
  with Image.open(directory / 'augmentation.png') as opened:
    assert opened.width > 7 * 160
  page = (directory / 'report.html').read_text()
  shown = [base64.b64decode(one) for one in re.findall(r'base64,([^"]+)"', page)]
  assert written in shown
  assert page.count('random views of it') == 2  # the caption, and for those who do not see it


def test_sheet_has_a_row_per_class_and_says_who_is_limited(pictures):
  views = {'angle': 180.0, 'angle_limits': {'scratch': 10}}
  made = experiment.build(settings(pictures, views), 0)
  found = texts(augmentation.sheet(made, 0))
  assert {'pit', 'scratch'} <= set(found)
  assert found[found.index('scratch') + 1] == '±10° or half a turn'
  assert found[found.index('pit') + 1] == 'scratch'  # nothing is said of the others


def test_original_is_the_picture_that_trains(pictures):
  still = {'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0), 'quarter_turns': False}
  made = experiment.build(settings(pictures, {**still, 'flips': False}), 0)
  sheet = np.asarray(augmentation.sheet(made, 0).axes[0].images[0].get_array())
  # Views that change nothing show the original seven times.
  for view in range(7):
    left = 160 + 24 + view * 166
    np.testing.assert_array_equal(sheet[:, left : left + 160], sheet[:, :160])
  first = experiment.eval_batches(made.config, made.source, made.split.train[:1], CLASSES)
  image = next(iter(first))['image'][0]
  label = made.source.labels[made.split.train[0]]
  top = 166 * label
  np.testing.assert_array_equal(sheet[top : top + 160 : 5, :160:5], image)


def test_no_sheet_without_augmentation(pictures):
  assert augmentation.sheet(experiment.build(settings(pictures, None), 0), 0) is None


@pytest.mark.parametrize(
  ('views', 'message'),
  [
    ({'angle_limits': {'scrach': 10}}, "'scrach', but the classes are pit, scratch; did you mean"),
    ({'angle_limits': {'scratch': 270}}, "of 'scratch' must be degrees in 0..180, came as 270"),
    ({'hue': 0.1}, "method.augmentation has no setting 'hue'"),
    ({'elastic': 0.5}, 'elastic must lie in'),
    ({'angle_limits': 10}, 'angle_limits must name classes'),
  ],
)
def test_bad_settings_are_said_before_anything_is_written(pictures, tmp_path, views, message):
  with pytest.raises(ValueError, match=message):
    train.train_seeds(settings(pictures, views), tmp_path / 'run', progress=False)
  assert not (tmp_path / 'run').exists()


def test_method_that_knows_good_parts_alone_shows_them_and_takes_no_limits():
  config = nearest_neighbor_bc.get_config('smoke')
  found = texts(augmentation.sheet(experiment.build(config, 0), 0))
  assert 'good' in found
  assert 'defect' not in found
  config.method.augmentation.angle_limits = {'good': 10}
  with pytest.raises(ValueError, match='nearest_neighbor does not know classes'):
    augmentation.sheet(experiment.build(config, 0), 0)
