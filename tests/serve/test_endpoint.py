"""The endpoint: what it takes, what it refuses and with which status, and that it loses nothing."""

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from jaxdefect import serve
from jaxdefect.serve import endpoint


def png(height=20, width=30, *, level=7):
  file = io.BytesIO()
  Image.fromarray(np.full((height, width), level, np.uint8)).save(file, 'PNG')
  return file.getvalue()


def inspect(picture, draw):
  """A model that tells the shape and the level."""
  if picture.shape[0] == 13:
    raise ValueError('the model takes pictures of 20 x 30 pixels')
  row = {'verdict': 'ok', 'shape': list(picture.shape), 'level': int(picture[0, 0, 0])}
  return row, (b'PNG' if picture.shape[0] != 11 else None) if draw else None


@pytest.fixture
def client():
  app = serve.make_app(inspect, {'method': 'patchcore'}, largest_body=10_000)
  with TestClient(app) as made:
    yield made


def test_a_picture_gets_its_verdict(client):
  answer = client.post('/inspect', content=png())
  assert answer.status_code == 200
  assert answer.json() == {'verdict': 'ok', 'shape': [20, 30, 1], 'level': 7}


def test_an_overlay_carries_the_verdict(client):
  answer = client.post('/overlay', content=png())
  assert (answer.status_code, answer.content) == (200, b'PNG')
  assert answer.headers['content-type'] == 'image/png'
  assert json.loads(answer.headers['x-verdict'])['level'] == 7
  silent = client.post('/overlay', content=png(height=11))
  assert silent.status_code == 422
  assert 'does not say where' in silent.json()['error']


@pytest.mark.parametrize(
  ('body', 'status', 'sentence'),
  [
    (b'', 400, 'it has no bytes'),
    (b'hello', 400, 'it is no picture'),
    (png()[:-30], 400, 'cannot|no picture|truncated'),
    (b'{"image": 1}', 400, 'it is no picture'),
    (b'x' * 10_001, 413, 'may have 10000 bytes'),
    (png(height=13), 422, 'takes pictures of 20 x 30'),
  ],
  ids=['empty', 'text', 'truncated', 'JSON', 'long', 'of another size'],
)
def test_a_malformed_body_is_refused_with_a_sentence(client, body, status, sentence):
  for path in ('/inspect', '/overlay'):
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert set(sentence.split('|')) & {
      s for s in sentence.split('|') if s in answer.json()['error']
    }
  assert client.get('/health').json()['held'] == 0


def test_a_body_without_a_length_is_cut_off_too(client):
  answer = client.post('/inspect', content=(b'x' * 1000 for _ in range(1000)))
  assert answer.status_code == 413


def test_a_picture_too_large_to_decode_is_refused_by_its_header(client, monkeypatch):
  monkeypatch.setattr(endpoint, 'LARGEST_PICTURE', 500)
  answer = client.post('/inspect', content=png())
  assert answer.status_code == 400
  assert 'it has 600 pixels, at most 500 are taken' in answer.json()['error']


def test_other_methods_and_paths(client):
  assert client.get('/inspect').status_code == 405
  assert client.post('/health', content=b'').status_code == 405
  assert client.get('/nowhere').status_code == 404
  assert client.get('/').json() == {'method': 'patchcore'}


def test_metrics_count_what_happened(client):
  for body in (png(), png(), b'hello'):
    client.post('/inspect', content=body)
  text = client.get('/metrics').text
  assert 'jaxdefect_requests_total{code="200"} 2' in text
  assert 'jaxdefect_requests_total{code="400"} 1' in text
  assert 'jaxdefect_inspection_seconds_count 2' in text
  assert 'jaxdefect_inspection_seconds_bucket{le="+Inf"} 2' in text
  assert 'jaxdefect_pictures_held 0' in text
  held = next(s for s in text.splitlines() if s.startswith('process_resident_memory_bytes'))
  assert int(held.split()[1]) > 10**7


def test_settings_are_checked():
  with pytest.raises(ValueError, match='workers must be 1 to the queue, 2; got 3'):
    serve.make_app(inspect, {}, queue=2, workers=3)


@pytest.fixture
def served():
  """make_app's arguments -> base URL of a real server on loopback, and the server."""
  import uvicorn

  running = []

  def start(*args, **kwargs):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    config = uvicorn.Config(serve.make_app(*args, **kwargs), port=port, log_level='warning')
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    running.append((server, thread))
    for _ in range(400):
      if server.started:
        break
      time.sleep(0.02)
    return f'http://127.0.0.1:{port}', server

  yield start
  for server, thread in running:
    server.should_exit = True
    thread.join(10)


def test_overload_is_answered_503_and_nothing_that_was_taken_is_lost(served):
  gate, begun = threading.Event(), threading.Semaphore(0)

  def slow(picture, draw):
    begun.release()
    gate.wait(20)
    return inspect(picture, draw)

  base, _ = served(slow, {}, queue=3)
  answers = []

  def post(level):
    answer = httpx2.post(f'{base}/inspect', content=png(level=level), timeout=30)
    answers.append((level, answer.status_code, answer.json(), answer.headers.get('retry-after')))

  threads = [threading.Thread(target=post, args=(level,)) for level in range(3)]
  for thread in threads:
    thread.start()
  assert begun.acquire(timeout=10)  # one is computed on
  for _ in range(200):
    if httpx2.get(f'{base}/health').json()['held'] == 3:
      break
    time.sleep(0.02)
  for level in range(100, 105):  # and these are too many
    post(level)
  refused = [one for one in answers if one[1] == 503]
  assert [one[0] for one in refused] == list(range(100, 105))
  assert all(one[3] == '1' and 'waiting already' in one[2]['error'] for one in refused)
  gate.set()
  for thread in threads:
    thread.join(20)
  taken = {one[0]: one[2]['level'] for one in answers if one[1] == 200}
  assert taken == {0: 0, 1: 1, 2: 2}
  post(9)
  assert answers[-1][1] == 200


def test_a_slow_body_does_not_hold_its_place_for_ever(served, monkeypatch):
  monkeypatch.setattr(endpoint, 'SECONDS_TO_SEND', 0.3)
  base, _ = served(inspect, {}, queue=1)
  host, port = base.removeprefix('http://').split(':')
  with socket.create_connection((host, int(port))) as connection:
    connection.sendall(b'POST /inspect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc')
    connection.settimeout(10)
    assert b'408' in connection.recv(4096)
  assert httpx2.post(f'{base}/inspect', content=png()).status_code == 200


_SERVER = """
import sys, time, uvicorn
from jaxdefect import serve
def inspect(picture, draw):
  print('begun', flush=True)
  time.sleep(1.0)
  return {'level': int(picture[0, 0, 0])}, None
uvicorn.run(serve.make_app(inspect, {}), port=int(sys.argv[1]), log_level='warning')
"""


def test_a_server_that_is_asked_to_stop_answers_first():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  process = subprocess.Popen(
    [sys.executable, '-c', _SERVER, str(port)], stdout=subprocess.PIPE, text=True
  )
  try:
    for _ in range(600):
      try:
        httpx2.get(f'http://127.0.0.1:{port}/health')
        break
      except httpx2.TransportError:
        time.sleep(0.05)
    answers = []
    thread = threading.Thread(
      target=lambda: answers.append(
        httpx2.post(f'http://127.0.0.1:{port}/inspect', content=png(level=3), timeout=20)
      )
    )
    thread.start()
    assert process.stdout.readline() == 'begun\n'
    process.send_signal(signal.SIGTERM)
    thread.join(20)
    assert answers[0].json() == {'level': 3}
    process.wait(20)
  finally:
    process.kill()
    process.communicate()
