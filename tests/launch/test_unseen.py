"""Nothing is tested on what it has learned from, whatever was set aside or judged first."""

import json
import types

import numpy as np
import pytest
from absl import flags

from jaxdefect import data
from jaxdefect.contracts import ClassScores
from jaxdefect.data import decode
from jaxdefect.review import Targets
from launch import evaluate, experiment, finished_run, retraining, review, tasks, train, unseen
from tests.launch import untrained_run

on_seeded = retraining.on_seeded  # the fixture replaces it


@pytest.fixture
def pictures(tmp_path):
  return tmp_path / 'pictures'


@pytest.fixture
def run(tmp_path, pictures, monkeypatch):
  monkeypatch.setattr(finished_run, 'read_run', untrained_run.read_run)
  monkeypatch.setattr(train, 'train_seed', untrained_run.train_seed)
  alike = retraining.Seeded(1, 1, 0, 1)
  monkeypatch.setattr(retraining, 'on_seeded', lambda *_: alike)
  return untrained_run.make(tmp_path / 'run', pictures)


def flag_values(**values) -> flags.FlagValues:
  parsed = flags.FlagValues()
  evaluate.define(parsed)
  parsed(['program', *(f'--{name}={value}' for name, value in values.items())])
  return parsed


def judge(store, directory, path, label='defect') -> None:
  image = decode.pixel_hash(decode.read_image(path))
  store.predict(1, [untrained_run.prediction(image, path)], who='line', missed=True)
  review.judge(store, directory, path, label, reviewer='anna')


@pytest.mark.parametrize('part', ['train', 'validation', 'references'])
def test_a_run_that_learned_from_what_is_held_out_is_not_scored(run, pictures, part):
  if part == 'references':
    content = json.loads((run / 'split.json').read_text())
    content |= {'train': {}, 'references': content['train']}
    (run / 'split.json').write_text(json.dumps(content))
  held = untrained_run.names(run, part)[:2]
  untrained_run.set_aside(pictures, [*held, untrained_run.names(run, 'test')[0]])
  said = f'run was trained on 2 of the 3 pictures that .*hold_out.json holds out, {held[0]} among '
  with pytest.raises(ValueError, match=said):
    evaluate.main(flag_values(workdir=run, hold_out='true'))
  with pytest.raises(ValueError, match=said):
    evaluate.main(flag_values(workdir=run))
  with review.open_store(run, who='anna') as store:
    with pytest.raises(ValueError, match=said):
      review.readiness(run, store, Targets())
    with pytest.raises(ValueError, match=said):
      retraining.retrain(run, store, who='anna', progress=False)


def test_every_look_at_the_hold_out_is_kept(run, pictures, monkeypatch, capsys):
  untrained_run.set_aside(pictures, untrained_run.names(run, 'test')[:2])
  nothing = {'n': 2, 'metrics': {'recall/good': 0.5}, 'intervals': {}}
  monkeypatch.setattr(evaluate, 'score', lambda *given: nothing)
  evaluate.main(flag_values(workdir=run, hold_out='true'))
  first = capsys.readouterr().out
  assert 'recall/good: 0.5' in first
  assert 'the first look of this run' in first
  evaluate.main(flag_values(workdir=run, hold_out='true'))
  assert 'look 2 of this run' in capsys.readouterr().out
  looks = json.loads((run / 'hold_out_looks.json').read_text())
  assert [one['metrics'] for one in looks] == [nothing['metrics']] * 2
  assert looks[0]['date'] <= looks[1]['date']


def test_what_only_tested_a_run_may_be_held_out(run, pictures, monkeypatch):
  held = untrained_run.names(run, 'test')[:2]
  untrained_run.set_aside(pictures, held)
  scored = []
  nothing = {'metrics': {}, 'intervals': {}}
  monkeypatch.setattr(evaluate, 'score', lambda *given: scored.append(given) or nothing)
  evaluate.main(flag_values(workdir=run, hold_out='true'))
  ((_, source, places, _),) = scored
  assert [source.names[i] for i in places] == held
  with pytest.raises(ValueError, match=f'2 of the test pictures of .* now, {held[0]} among them'):
    evaluate.main(flag_values(workdir=run))


def test_a_retrained_model_is_held_against_the_hold_out_too(run, pictures, monkeypatch):
  held = untrained_run.names(run, 'test')[:2]
  untrained_run.set_aside(pictures, held)
  later = untrained_run.make(run / 'review' / 'runs' / '0123456789ab', run.parent / 'others')
  content = json.loads((later / 'split.json').read_text())
  content['train'] = json.loads((run / 'split.json').read_text())['test']
  (later / 'split.json').write_text(json.dumps(content))
  with review.open_store(run, who='anna') as store:
    store.promote(store.add_model('review/runs/0123456789ab', who='anna'), who='anna')
    for asked in (
      lambda: review.readiness(run, store, Targets()),
      lambda: retraining.retrain(run, store, who='anna', progress=False),
    ):
      with pytest.raises(ValueError, match='0123456789ab was trained on 2 of the 2 pictures'):
        asked()


def test_verdicts_on_what_tests_a_model_do_not_train(run, pictures, tmp_path):
  tested, validates = (untrained_run.names(run, part)[0] for part in ('test', 'validation'))
  untrained_run.write_picture(pictures / 'good' / 'later.png', 90)
  untrained_run.set_aside(pictures, ['good/later.png'])
  with review.open_store(run, who='anna') as store:
    judge(store, run, pictures / tested)
    with pytest.raises(ValueError, match=f'none of the 1 verdicts .*{tested} is in the test part'):
      retraining.retrain(run, store, who='anna', progress=False)
    judge(store, run, pictures / validates)
    judge(store, run, untrained_run.write_picture(tmp_path / 'new' / 'a.png', 99))
    result = retraining.retrain(run, store, who='anna', progress=False)
  assert [one.partition('pictures/')[2] for one in result.left_out] == [
    f'{tested} is in the test part',
    f'{validates} is in the validation part',
  ]
  first, merged = unseen.sums(run), unseen.sums(result.directory)
  assert set(merged['test'].values()) == set(first['test'].values())
  assert len(set(merged['train'].values()) - set(first['train'].values())) == 1
  assert not set(merged['train'].values()) & {
    *merged['test'].values(),
    *merged['validation'].values(),
  }


def test_a_run_without_a_readable_split_is_refused(run, pictures):
  untrained_run.set_aside(pictures, untrained_run.names(run, 'test')[:1])
  (run / 'split.json').write_text('{}')
  with pytest.raises(ValueError, match=r"split\.json is no split: 'train'"):
    evaluate.main(flag_values(workdir=run, hold_out='true'))
  (run / 'split.json').unlink()
  with pytest.raises(ValueError, match=r'split\.json does not exist, so that nobody knows'):
    evaluate.main(flag_values(workdir=run, hold_out='true'))


def test_a_split_that_finds_too_few_images_says_what_is_held_out(run, pictures):
  test = untrained_run.names(run, 'test')
  held = [name for name in test if name.startswith('good')][:2]
  untrained_run.set_aside(pictures, held)
  config = experiment.read_config(run)
  source = experiment.load_source(config.data)
  assert len(source) == 14
  config.split.per_class = 6
  said = (
    r"'good' .* has 6 images, but 8 are needed.*--config\.split\.per_class=6.*held out: 2 \(good/"
  )
  with pytest.raises(ValueError, match=said):
    experiment.make_split(config.split, source, 0)


def test_copies_of_a_part_count_once_and_the_worst_of_them(monkeypatch):
  generator = np.random.default_rng(0)
  pictures = generator.integers(0, 256, (4, 64, 64, 1), np.uint8)
  shown = [0, 0, 1, 2, 2, 3]  # defect twice, defect, good twice, good
  labels = np.array([0, 0, 0, 1, 1, 1], np.int32)
  classes = ('defect', 'good')
  held = data.Source('held', classes, tuple('abcdef'), labels, lambda i: pictures[shown[i]])
  said = np.array([0, 1, 0, 1, 0, 1])  # one of either pair is wrong
  scores = np.eye(2, dtype=np.float32)[said]
  answer = ClassScores(scores, scores), {'label': labels}
  monkeypatch.setattr(experiment, 'eval_batches', lambda *_: None)
  monkeypatch.setattr(tasks, 'predict_all', lambda *_: answer)
  fitted = types.SimpleNamespace(classes=held.classes)
  run = finished_run.Finished(None, None, fitted, None)
  assert on_seeded(run, held) == retraining.Seeded(found=1, defects=2, rejected=1, good=2)
