"""One file for a line's review: exactly one verdict a picture, nothing lost, nothing deleted."""

import sqlite3

import pytest

from jaxdefect.review import Conflict, Prediction, Store
from jaxdefect.review.migrations import MIGRATIONS


def prediction(image, *, priority=0.5, label='good', path=None):
  return Prediction(
    image=image, path=path or f'/line/{image}.png', verdict='ok', rule='supervised', label=label,
    margin=0.4, anomaly=None, novelty=0.1, priority=priority,
  )  # fmt: skip


@pytest.fixture
def store(tmp_path):
  with Store(tmp_path / 'review.sqlite') as opened:
    model = opened.add_model('runs/first', who='anna')
    opened.promote(model, who='anna')
    yield opened


def images(store, **settings):
  return [one.prediction.image for one in store.queue(**settings)]


def test_queue_comes_by_priority_and_misses_first(store):
  store.predict(1, [prediction('a', priority=0.2), prediction('b', priority=0.9)], who='line')
  assert store.predict(1, [prediction('c', priority=0.1)], who='anna', missed=True) == 1
  store.predict(1, [prediction('d', priority=0.2)], who='line')
  assert images(store) == ['c', 'b', 'd', 'a']
  assert store.waiting() == 4
  # A page after another, none twice.
  seen, after = [], None
  while page := store.queue(limit=1, after=after):
    seen += [one.prediction.image for one in page]
    last = page[-1]
    after = last.missed, last.prediction.priority, last.prediction.image
  assert seen == ['c', 'b', 'd', 'a']
  # Scored again, it changes its place and stays one row; a miss stays one.
  assert store.predict(1, [prediction('a', priority=0.95), prediction('c')], who='line') == 0
  assert images(store) == ['c', 'a', 'b', 'd']


def test_a_verdict_takes_a_picture_out_and_undo_brings_it_back(store):
  store.predict(1, [prediction('a'), prediction('b', priority=0.4)], who='line')
  number = store.judge('a', 'bent', reviewer='anna')
  assert images(store) == ['b']
  (one,) = store.verdicts()
  assert (one.number, one.image, one.label, one.said) == (number, 'a', 'bent', 'good')
  assert store.predict(1, [prediction('a')], who='line') == 0, 'judged pictures do not come back'
  assert store.undo(reviewer='anna').image == 'a'
  assert images(store) == ['a', 'b']
  assert store.verdicts() == []
  assert [v.undone for v in store.verdicts(standing=False)] == [True]
  store.judge('a', 'good', reviewer='ben')
  assert [v.label for v in store.verdicts()] == ['good']
  with pytest.raises(Conflict, match='anna has no verdict to take back'):
    store.undo(reviewer='anna')


def test_a_known_miss_comes_back_as_one(store):
  store.predict(1, [prediction('a', priority=0.1)], who='line', missed=True)
  store.predict(1, [prediction('b', priority=0.9)], who='line')
  for image in ('a', 'b'):
    store.judge(image, 'bent', reviewer='anna')
    store.undo(reviewer='anna')
  assert [(one.prediction.image, one.missed) for one in store.queue(limit=9)] == [
    ('a', True),
    ('b', False),
  ]


def test_two_reviewers_on_one_picture(store, tmp_path):
  store.predict(1, [prediction('a')], who='line')
  with Store(tmp_path / 'review.sqlite') as other:
    assert images(other) == ['a']
    store.judge('a', 'bent', reviewer='anna')
    with pytest.raises(Conflict, match='anna has judged it already: bent'):
      other.judge('a', 'good', reviewer='ben')
  assert [v.label for v in store.verdicts()] == ['bent']
  with pytest.raises(Conflict, match='no such picture in the queue'):
    store.judge('z', 'good', reviewer='ben')


def test_models_are_promoted_and_rolled_back(store):
  second = store.add_model('runs/second', who='anna')
  assert store.add_model('runs/second', who='ben') == second
  assert store.live() == (1, 'runs/first')
  store.promote(second, who='anna', reason='not worse')
  assert store.live() == (second, 'runs/second')
  third = store.add_model('runs/third', who='anna')
  store.refuse(third, who='anna', reason='finds less')
  assert [m['state'] for m in store.models()] == ['retired', 'live', 'refused']
  assert store.roll_back(who='ben') == 1
  assert store.live() == (1, 'runs/first')
  with pytest.raises(Conflict, match='no earlier model'):
    store.roll_back(who='ben')
  with pytest.raises(Conflict, match='There is no model 9'):
    store.promote(9, who='ben')
  assert [entry['what'] for entry in store.audit()][-4:] == [
    'model promoted', 'model added', 'model refused', 'rolled back',
  ]  # fmt: skip


def test_the_audit_trail_only_grows(store, tmp_path):
  store.predict(1, [prediction('a')], who='line')
  store.judge('a', 'bent', reviewer='anna')
  last = store.audit()[-1]
  assert (last['who'], last['what'], last['details']['label']) == ('anna', 'judged', 'bent')
  other = sqlite3.connect(tmp_path / 'review.sqlite')
  for statement in ('DELETE FROM audit', "UPDATE audit SET who = 'ben'"):
    with pytest.raises(sqlite3.IntegrityError, match='audit trail only grows'):
      other.execute(statement)
  with pytest.raises(sqlite3.IntegrityError, match='a verdict is undone, not deleted'):
    other.execute('DELETE FROM verdicts')
  other.close()


def test_a_page_is_read_off_an_index(store):
  store.predict(1, (prediction(f'{i:05}', priority=i % 97 / 97) for i in range(3000)), who='line')
  for after in (None, (False, 0.5, '00100')):
    plan = store.queue_plan(after=after)
    assert any('queue' in step and 'INDEX queue_order' in step for step in plan), plan
    assert not any('TEMP B-TREE' in step for step in plan), plan
    scans = [step for step in plan if step.startswith('SCAN') and 'INDEX' not in step]
    assert not scans, plan
  assert len(store.queue(limit=50, after=(False, 0.5, '00100'))) == 50


def test_runs_that_were_kept_as_typed_are_named_from_the_review(tmp_path, monkeypatch):
  path, digest = tmp_path / 'review.sqlite', 'review/runs/0123456789ab'
  with monkeypatch.context() as before:
    before.setattr('jaxdefect.review.store.MIGRATIONS', MIGRATIONS[:1])
    with Store(path) as store:
      store.add_model('runs/caps', who='anna', note='the first')
      store.add_model(f'/line/runs/caps/{digest}', who='anna', note='9 verdicts')
      store.promote(2, who='anna')
      store.add_model(f'runs/caps/{digest}', who='anna', note='9 verdicts')
  with Store(path) as store:
    names = [model['directory'] for model in store.models()]
    assert names == ['.', digest, f'runs/caps/{digest}']  # the same run cannot be there twice
    assert store.live() == (2, digest)
    assert store.add_model(digest, who='anna') == 2


def test_older_files_are_migrated_and_newer_ones_refused(tmp_path):
  path = tmp_path / 'old.sqlite'
  sqlite3.connect(path).close()
  with Store(path) as store:
    assert store.live() is None
  raw = sqlite3.connect(path)
  assert raw.execute('PRAGMA user_version').fetchone() == (len(MIGRATIONS),)
  raw.execute(f'PRAGMA user_version = {len(MIGRATIONS) + 1}')
  raw.close()
  with pytest.raises(
    ValueError, match=f'is of version {len(MIGRATIONS) + 1}; this jaxdefect knows'
  ):
    Store(path)
  (tmp_path / 'picture.sqlite').write_bytes(b'not a database' * 100)
  with pytest.raises(ValueError, match='is no review store'):
    Store(tmp_path / 'picture.sqlite')
