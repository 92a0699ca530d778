"""Extending a finished run: names that mean one picture, and pictures that must not be known."""

import json
import pathlib
import shutil
import types

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from jaxdefect import train
from jaxdefect.contracts import Fitted
from jaxdefect.data import splits
from launch import adapt, experiment, finished_run

pytest.importorskip('jaxdefect.methods.patchcore')


def write_pictures(folder: pathlib.Path, names, *, seed: int) -> pathlib.Path:
  folder.mkdir(parents=True)
  generator = np.random.default_rng(seed)
  for name in names:
    # Of 12 bits, so that a sum is only the same where the run's own window is read.
    Image.fromarray(generator.integers(0, 4096, (40, 48), np.uint16)).save(folder / name)
  return folder.parent


def remember(key, fitted, references):
  """A method that keeps nothing of a picture but its number."""
  del key
  seen = [batch['index'][batch['valid']] for batch in references.batches]
  images = np.concatenate([np.asarray(fitted.memory['image']), *seen])
  return bank_of(images)


def bank_of(images) -> Fitted:
  images = np.asarray(images, np.int32)
  memory = {'bank': images[:, None].astype(np.float32), 'image': images}
  return Fitted({}, {}, memory, None, ('good', 'defect'))


@pytest.fixture
def run(tmp_path, monkeypatch) -> pathlib.Path:
  """A PatchCore of 10 good parts whose memory has nothing of the last one."""
  names = [f'{i}.png' for i in range(10)]
  pictures = write_pictures(tmp_path / 'pictures' / 'good', names, seed=0)
  write_pictures(pictures / 'defect', names, seed=1)
  c = ConfigDict({'method': {'name': 'patchcore'}, 'seeds': (0,), 'batch_size': 4})
  c.data = {'name': 'folder', 'dir': str(pictures), 'classes': ('good', 'defect')}
  c.data.update({'image_size': (32, 32), 'interpolation': 'bilinear'})
  c.data.sixteen_bit_range = (0, 4095)
  c.split = {'kind': 'good_only', 'train': 0.5}
  source = experiment.load_source(c.data)
  split = experiment.make_split(c.split, source, 0)
  experiment.write_config(c, tmp_path / 'run')
  splits.write(tmp_path / 'run' / 'split.json', source, split)
  fitted = bank_of(sorted(split.train)[:-1])
  train.save_fitted(tmp_path / 'run' / 'fitted.safetensors', fitted)

  def read_run(directory):
    stored = train.load_fitted(directory / 'fitted.safetensors')
    method = types.SimpleNamespace(adapt=remember, predict=None)
    return finished_run.Finished(c, method, stored, directory)

  monkeypatch.setattr(finished_run, 'read_run', read_run)
  return tmp_path / 'run'


def extend(workdir, **values) -> pathlib.Path:
  parsed = flags.FlagValues()
  adapt.define(parsed)
  values = {'workdir': workdir, 'out': workdir.parent / f'{workdir.name}+', **values}
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  adapt.main(parsed)
  return values['out']


def images(run) -> set[int]:
  return set(np.asarray(train.load_fitted(run / 'fitted.safetensors').memory['image']).tolist())


def added(run) -> dict:
  return json.loads((run / 'added.json').read_text())


def part(run, name: str) -> list[str]:
  return list(json.loads((run / 'split.json').read_text())[name])


def copies(run, names, folder: pathlib.Path) -> pathlib.Path:
  (folder / 'good').mkdir(parents=True)
  for i, name in enumerate(names):
    shutil.copy(run.parent / 'pictures' / name, folder / 'good' / f'new{i}.png')
  return folder


def test_a_name_that_means_two_pictures_is_refused(run, tmp_path):
  # Any picture of the memory but the last one, and one of the same name that is added.
  name = sorted(part(run, 'train'))[0]
  more = write_pictures(tmp_path / 'more' / 'good', [name.split('/')[1], 'x.png'], seed=2)
  longer = extend(run, references=more)
  place = int(name[5:-4])
  assert added(longer).keys() == {f'more/{name}', 'more/good/x.png'}
  with pytest.raises(ValueError, match=rf'means 2 pictures of .*: folder/{name}, more/{name};'):
    extend(longer, forget=name)
  number = added(longer)[f'more/{name}'][0]
  shorter = extend(longer, forget=f'more/{name}', out=tmp_path / 'a')
  assert images(longer) - images(shorter) == {number}
  assert added(shorter).keys() == {'more/good/x.png'}
  # The same name beside another one, which once decided what was meant.
  shorter = extend(longer, forget=f'folder/{name},good/x.png', out=tmp_path / 'b')
  assert images(longer) - images(shorter) == {place, added(longer)['more/good/x.png'][0]}
  assert added(shorter).keys() == {f'more/{name}'}
  extend(shorter, forget=f'more/{name}')  # and the other one can still go


def test_no_number_and_no_name_means_two_pictures(run, tmp_path):
  first = write_pictures(tmp_path / 'monday' / 'good', ['0.png'], seed=2)
  second = write_pictures(tmp_path / 'tuesday' / 'good', ['0.png'], seed=3)
  again = write_pictures(tmp_path / 'elsewhere' / 'monday' / 'good', ['0.png'], seed=4)
  both = extend(extend(run, references=first), references=second)
  found = added(both)
  assert found.keys() == {'monday/good/0.png', 'tuesday/good/0.png'}
  assert [number for number, _ in found.values()] == [20, 21]  # 20 pictures have a number already
  with pytest.raises(ValueError, match=r'knows a picture monday/good/0\.png already; put what is'):
    extend(both, references=again)
  with pytest.raises(ValueError, match=r"not fitted to a picture 'monday/good/1\.png'"):
    extend(both, forget='monday/good/1.png')


def test_a_file_of_an_earlier_version(run, tmp_path):
  name = sorted(part(run, 'train'))[0]
  (run / 'added.json').write_text(json.dumps({name: 30, 'good/y.png': 31}))
  train.save_fitted(run / 'fitted.safetensors', bank_of([*images(run), 30, 31]))
  with pytest.raises(ValueError, match=rf'means 2 pictures of .*: folder/{name}, added/{name};'):
    extend(run, forget=name)
  shorter = extend(run, forget=f'added/{name}')
  assert images(run) - images(shorter) == {30}
  last = extend(shorter, references=write_pictures(tmp_path / 'more' / 'good', ['z.png'], seed=2))
  assert added(last)['added/good/y.png'] == [31, '']
  assert added(last)['more/good/z.png'][0] == 32


def test_what_sets_the_threshold_is_not_known(run, tmp_path):
  more = write_pictures(tmp_path / 'more' / 'good', ['x.png'], seed=2)
  held = copies(run, part(run, 'train')[-1:], tmp_path / 'held')
  name = part(run, 'train')[-1]
  with pytest.raises(
    ValueError, match=rf'new0\.png in .*held is the same picture as folder/{name}'
  ):
    extend(run, references=more, held_out=held)
  longer = extend(run, references=more)
  other = write_pictures(tmp_path / 'other' / 'good', ['x.png'], seed=3)
  with pytest.raises(ValueError, match=r'x\.png in .*more is the same picture as more/good/x\.png'):
    extend(longer, references=other, held_out=more)
  assert not (tmp_path / 'run++').exists()


def test_what_tests_the_run_is_not_learned(run, tmp_path):
  tested = [name for name in part(run, 'test') if name.startswith('good')][:1]
  longer = extend(run, references=write_pictures(tmp_path / 'more' / 'good', ['x.png'], seed=2))
  offered = copies(run, tested, tmp_path / 'offered')
  for one in (run, longer):
    with pytest.raises(
      ValueError, match=rf'the same picture as folder/{tested[0]}, by which .* is'
    ):
      extend(one, references=offered, out=tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
