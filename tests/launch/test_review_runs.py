"""A review goes on from another folder, and after its run was renamed, with the same models."""

import pytest
from absl import flags

from jaxdefect.data import decode
from launch import (
  experiment,
  finished_run,
  retraining,
  review,
  review_runs,
  review_scores,
  review_server,
  train,
)
from tests.launch import untrained_run


@pytest.fixture
def scored(tmp_path, monkeypatch):
  """Which runs have scored pictures, and on which pictures they say that they were trained."""
  seen = []

  def score(run, paths, *, overlays):
    seen.append((run.directory.resolve(), run.config.data.dir))
    sums = [decode.pixel_hash(decode.read_image(path)) for path in paths]
    return [untrained_run.prediction(image, path) for image, path in zip(sums, paths)]

  monkeypatch.setattr(review_scores, 'score', score)
  monkeypatch.setattr(finished_run, 'read_run', untrained_run.read_run)
  monkeypatch.setattr(train, 'train_seed', untrained_run.train_seed)
  alike = retraining.Seeded(1, 1, 0, 1)
  monkeypatch.setattr(retraining, 'on_seeded', lambda *_: alike)
  monkeypatch.chdir(tmp_path)
  return seen


def look(workdir, images, **values) -> None:
  parsed = flags.FlagValues()
  review.define(parsed)
  values = {'workdir': workdir, 'images': images, 'progress': 'false', **values}
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  review.main(parsed)


def test_a_review_goes_on_from_anywhere(scored, tmp_path, monkeypatch, capsys):
  pictures, new = tmp_path / 'pictures', tmp_path / 'new'
  untrained_run.make(tmp_path / 'runs' / 'a', pictures)
  untrained_run.write_picture(pictures / 'good' / 'later.png', 90)
  untrained_run.set_aside(pictures, ['good/later.png'])
  picture = untrained_run.write_picture(new / 'b.png', 99)
  untrained_run.write_picture(new / 'waits.png', 98)
  look('runs/a', new)
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  look(tmp_path / 'runs' / 'a', new)
  assert {directory for directory, _ in scored} == {tmp_path / 'runs' / 'a'}

  # The folder gets another name, and another run its own.
  (tmp_path / 'runs' / 'a').rename(tmp_path / 'runs' / 'b')
  untrained_run.make(tmp_path / 'runs' / 'a', tmp_path / 'others')
  scored.clear()
  look(tmp_path / 'runs' / 'b', new)
  assert scored == [(tmp_path / 'runs' / 'b', str(pictures))]

  # A retrained model follows as well, with the pictures that it was trained on.
  monkeypatch.chdir(tmp_path)
  look('runs/b', '', verdict=f'{picture}:defect', retrain='true')
  (tmp_path / 'runs' / 'b').rename(tmp_path / 'c')
  scored.clear()
  capsys.readouterr()
  look('c', new, retrain='true')
  assert 'promoted: it is the live model already' in capsys.readouterr().out
  (run,) = (tmp_path / 'c' / 'review' / 'runs').iterdir()
  assert scored == [(run, f'c/review/runs/{run.name}/pictures')]
  with review.open_store(tmp_path / 'c', who='anna') as store:
    assert [model['directory'] for model in store.models()] == ['.', f'review/runs/{run.name}']
  line = review_server.line(tmp_path / 'c', None, review_server.Retraining(tmp_path / 'c'))
  assert line.classes() == untrained_run.CLASSES
  assert [row['id'] for row in line.models()] == [1, 2]


def test_a_run_under_two_names_is_found(tmp_path):
  (tmp_path / 'review' / 'runs' / '0123456789ab').mkdir(parents=True)
  place = tmp_path / 'review' / 'runs' / '0123456789ab'
  for kept in (f'{review_runs.RUNS}/0123456789ab', '/gone/a/review/runs/0123456789ab', str(place)):
    assert review_runs.place(tmp_path, kept) == place
  assert review_runs.place(tmp_path, review_runs.FIRST) == tmp_path
  with pytest.raises(ValueError, match='abcdef012345 holds no run'):
    experiment.read_config(review_runs.place(tmp_path, f'{review_runs.RUNS}/abcdef012345'))
