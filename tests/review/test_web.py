"""What the page's server answers, and what it does not do for anybody."""

import re
import sqlite3

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from jaxdefect.review import Store, web
from tests.review.line_of_pictures import CLASSES, FakeLine


@pytest.fixture
def fake(tmp_path):
  return FakeLine(tmp_path)


@pytest.fixture
def client(fake):
  with TestClient(web.make_app(fake.line), base_url='http://127.0.0.1:8765') as made:
    yield made


def token(client) -> str:
  found = re.search(r'"token": "([^"]+)"', client.get('/').text)
  assert found
  return found.group(1)


def post(client, path, body=None, **headers):
  sent = {'x-review-token': token(client), **headers}
  return client.post(path, json={'reviewer': 'anna'} | (body or {}), headers=sent)


def test_the_page_brings_all_it_needs_and_nothing_else(client):
  answer = client.get('/')
  assert answer.status_code == 200
  policy = answer.headers['content-security-policy']
  nonce = re.search(r"script-src 'nonce-([^']+)'", policy).group(1)
  assert f'<script nonce="{nonce}">' in answer.text
  assert "default-src 'none'" in policy
  assert "frame-ancestors 'none'" in policy
  assert not re.findall(r'(?:src|href)="https?:', answer.text)
  assert ' style="' not in answer.text
  assert 'NONCE' not in answer.text


def test_a_verdict_an_undo_and_the_history(client, fake):
  page = client.get('/api/queue').json()
  assert page['waiting'] == 12
  assert page['more'] is None
  assert page['rows'][0]['image'] == fake.images[0]
  assert page['rows'][0]['overlay'] is True
  assert 'path' not in page['rows'][0]
  saved = post(client, '/api/verdict', {'image': fake.images[0], 'label': 'bent'})
  assert saved.json() == {'verdict': 1}
  state = client.get('/api/state').json()
  assert (state['waiting'], state['judged']) == (11, 1)
  assert state['classes'] == list(CLASSES)
  assert state['history'][0]['label'] == 'bent'
  again = post(client, '/api/verdict', {'image': fake.images[0], 'label': 'good'})
  assert (again.status_code, again.json()['error']) == (409, 'anna has judged it already: bent.')
  assert post(client, '/api/undo').json()['image'] == fake.images[0]
  assert client.get('/api/state').json()['history'][0]['undone'] is True
  assert post(client, '/api/undo').status_code == 409


def test_a_long_queue_comes_page_by_page(client, fake, monkeypatch):
  monkeypatch.setattr(web, 'PAGE_SIZE', 5)
  seen, after = [], ''
  while True:
    page = client.get('/api/queue', params={'after': after}).json()
    seen += [row['image'] for row in page['rows']]
    if page['more'] is None:
      break
    after = page['more']
  assert seen == fake.images
  assert client.get('/api/queue', params={'after': 'x'}).status_code == 400


def test_pictures_come_by_their_pixels_and_as_they_were(client, fake):
  answer = client.get(f'/picture/{fake.images[0]}')
  assert answer.headers['content-type'] == 'image/png'
  assert client.get(f'/picture/{fake.images[0]}', params={'side': '32'}).status_code == 200
  for side in ('5', '-1', '99999', 'x'):
    assert client.get(f'/picture/{fake.images[0]}', params={'side': side}).status_code == 400
  assert client.get(f'/overlay/{fake.images[0]}').status_code == 200
  Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(fake.pictures / '00.png')
  changed = client.get(f'/picture/{fake.images[0]}')
  assert (changed.status_code, changed.json()['error']) == (
    410, '00.png has changed since it was scored.',
  )  # fmt: skip
  refused = post(client, '/api/verdict', {'image': fake.images[0], 'label': 'bent'})
  assert refused.status_code == 410
  (fake.pictures / '01.png').write_text('no picture any more')
  assert client.get(f'/picture/{fake.images[1]}').status_code == 410
  assert client.get('/api/state').json()['judged'] == 0


@pytest.mark.parametrize(
  'path',
  [
    '/picture/..%2f..%2fetc%2fpasswd',
    '/picture/%2fetc%2fpasswd',
    '/overlay/..%2freview.sqlite',
    '/overlay/..%5creview',
    '/overlay/../review.sqlite',
    '/review.sqlite',
    '/picture/' + 'f' * 64,
    '/page.html',
  ],
)
def test_no_other_file_is_served(client, path):
  answer = client.get(path)
  assert answer.status_code == 404
  assert b'SQLite' not in answer.content
  assert b'root:' not in answer.content


def test_other_sites_and_names_are_refused(client, fake):
  body = {'image': fake.images[0], 'label': 'bent', 'reviewer': 'anna'}
  assert client.post('/api/verdict', json=body).status_code == 403
  wrong = client.post('/api/verdict', json=body, headers={'x-review-token': 'guess'})
  assert wrong.status_code == 403
  other = post(client, '/api/verdict', body, origin='https://evil.example')
  assert (other.status_code, other.json()['error']) == (
    403, 'This request comes from another site.',
  )  # fmt: skip
  own = post(client, '/api/verdict', body, origin='http://127.0.0.1:8765')
  assert own.status_code == 200
  assert client.get('/', headers={'host': 'evil.example'}).status_code == 400
  form = client.post(
    '/api/undo', data={'reviewer': 'anna'}, headers={'x-review-token': token(client)}
  )
  assert form.status_code == 415
  for path in ('/api/verdict', '/api/undo', '/api/retrain', '/api/rollback'):
    assert client.get(path).status_code == 405


def test_bad_requests_get_a_sentence(client, fake):
  good = {'image': fake.images[0], 'label': 'bent'}
  for body, status, said in (
    ({**good, 'label': 'broken'}, 400, "There is no class 'broken'; there are good, bent, stained"),
    ({**good, 'image': 7}, 400, 'image is missing'),
    ({**good, 'image': 'f' * 64}, 409, 'no such picture in the queue'),
    ({**good, 'reviewer': ''}, 400, 'reviewer is missing'),
    ({**good, 'reviewer': 'a\nb'}, 400, 'reviewer is a name of 1 to 60 letters'),
    ({**good, 'reviewer': 'a' * 61}, 400, 'reviewer is a name of 1 to 60 letters'),
    ({**good, 'note': 'x' * 70_000}, 413, 'A request has at most 65,536 bytes'),
  ):
    answer = post(client, '/api/verdict', body)
    assert answer.status_code == status, body
    assert said in answer.json()['error']
  sent = {'x-review-token': token(client), 'content-type': 'application/json'}
  for content in ('{', '[]', '"text"'):
    assert client.post('/api/undo', content=content, headers=sent).status_code == 400
  assert client.get('/api/state').json()['judged'] == 0


def test_a_full_disk_saves_nothing_and_says_so(client, fake, monkeypatch):
  def full(*_, **__):
    raise sqlite3.OperationalError('database or disk is full')

  monkeypatch.setattr(Store, 'judge', full)
  answer = post(client, '/api/verdict', {'image': fake.images[0], 'label': 'bent'})
  assert answer.status_code == 503
  assert answer.json()['error'] == 'Nothing was saved: database or disk is full. Try again.'
  monkeypatch.undo()
  assert client.get('/api/state').json()['judged'] == 0


def test_a_disk_that_is_full_in_truth(fake):
  with Store(fake.path) as store:
    pages = store._db.execute('PRAGMA page_count').fetchone()[0]
    store._db.execute(f'PRAGMA max_page_count = {pages}')  # SQLite's own full disk
    judged = 0

    def judge_all():
      nonlocal judged
      for image in fake.images:
        store.judge(image, 'bent', reviewer='a name that takes some room ' * 40)
        judged += 1

    with pytest.raises(sqlite3.OperationalError, match='full'):
      judge_all()
  with Store(fake.path) as store:
    assert len(store.verdicts()) == judged
    assert store.waiting() + judged == len(fake.images)


def test_retraining_and_going_back(client, fake):
  before = client.get('/api/gauges').json()['gauges'][0]['value']
  assert post(client, '/api/retrain').status_code == 200
  assert post(client, '/api/retrain').status_code == 409
  assert client.get('/api/gauges').json()['gauges'][0]['value'] > before
  assert [one['state'] for one in client.get('/api/state').json()['models']] == ['retired', 'live']
  assert post(client, '/api/rollback').json() == {'model': 1}
  assert post(client, '/api/rollback').status_code == 409
